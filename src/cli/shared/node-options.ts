import type { Command } from 'commander';
import { Option } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import type { NodePlace } from '../../job/launch/job.js';
import { parseCount } from './run-options.js';

/** What commander parses of them. */
export interface NodeOptions {
  readonly nnodes?: number;
  readonly nodeRank?: number;
  readonly rdzvEndpoint?: string;
}

const DEFAULT_PORT = 29_500;

/** Adds torchrun's flags of a run on several nodes. */
export function addNodeOptions(command: Command): Command {
  return command
    .option('--nnodes <m>', 'nodes of the run, each with a launcher and --nproc processes (default: 1)', parseCount)
    .option('--node-rank <r>', 'which of them this is, from 0', parseRank)
    .option('--rdzv-endpoint <host:port>', `node 0, and the port on which the launchers meet (port ${DEFAULT_PORT})`);
}

/** For commands that run on one node: says so, and what does not. */
export function refuseNodeOptions(command: Command): Command {
  for (const flag of ['--nnodes <m>', '--node-rank <r>', '--rdzv-endpoint <host:port>']) {
    const refuse = (): never => {
      throw usage(`${command.name()} runs on one node, and has no ${flag}`, 'mbridge pretrain runs on several');
    };
    command.addOption(new Option(flag).hideHelp().argParser(refuse));
  }
  return command;
}

function parseRank(text: string): number {
  return text === '0' ? 0 : parseCount(text);
}

/** Which node of how many this is; undefined where there is one. @throws MbridgeError MB_USAGE (exit 2) */
export function nodePlace({ nnodes: count = 1, nodeRank, rdzvEndpoint }: NodeOptions): NodePlace | undefined {
  if (count === 1) {
    if ((nodeRank ?? 0) === 0) return undefined;
    throw usage(`--node-rank ${nodeRank}, and one node`, 'say with --nnodes how many nodes there are');
  }
  if (nodeRank === undefined) throw usage(`--nnodes ${count} without --node-rank`, 'number the nodes from 0');
  if (nodeRank >= count) throw usage(`--node-rank ${nodeRank} of ${count} nodes`, `it goes from 0 to ${count - 1}`);
  // `[::1]:29500`, `::1`, `node-a:29500` or `node-a`.
  const form = /^(?:\[([^\]]+)\]|([^:[\]]+)|([^[\]]*:[^[\]]*:[^[\]]*))(?::(\d+))?$/;
  const [, six, name, bare, port = String(DEFAULT_PORT)] = form.exec(rdzvEndpoint ?? '') ?? [];
  const host = six ?? name ?? bare;
  if (host === undefined || !(Number(port) >= 1 && Number(port) <= 65_535)) {
    const found = rdzvEndpoint === undefined ? 'without --rdzv-endpoint' : `and --rdzv-endpoint ${rdzvEndpoint}`;
    throw usage(
      `--nnodes ${count} ${found}`,
      'give HOST:PORT of node 0, the same on every node; [ADDRESS]:PORT of IPv6',
    );
  }
  return { count, rank: nodeRank, host, port: Number(port) };
}

function usage(found: string, hint: string): MbridgeError {
  return new MbridgeError('usage', 'MB_USAGE', found, { hint });
}
