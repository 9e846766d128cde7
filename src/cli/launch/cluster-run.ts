import { Command } from 'commander';
import { MbridgeError } from '../../base/errors.js';
import { formatBytes } from '../../base/format-amount.js';
import type { RunConfig } from '../../config/schema.js';
import { withDefaultSaves } from '../../train/default-saves.js';
import type { RunPlan } from '../../train/plan.js';
import { planRequest } from '../shared/plan-request.js';
import {
  addRestartOption,
  addRunOptions,
  namesConfigFile,
  resolveRequest,
  type RunOptions,
} from '../shared/run-options.js';

/** The machines that a run is written for. */
export interface Machines {
  readonly nodes: number;
  /** GPUs a node; undefined for a run on the CPU. */
  readonly gpus: number | undefined;
  /** Ranks a node, for a run on the CPU. */
  readonly cpuRanks: number | undefined;
  /** How the ranks of the CPU are asked for, for messages. */
  readonly cpuFlag: string;
}

/** A command that was checked, and what a starter has to know of it. */
export interface ClusterRun {
  /** What follows `mbridge`: `pretrain`, the recipe, values, the device. */
  readonly words: readonly string[];
  /** Of the recipe or file. */
  readonly name: string;
  /** The configuration file among the words. */
  readonly file: string | undefined;
  readonly config: RunConfig;
  readonly plan: RunPlan;
  readonly ranksPerNode: number;
  /** `--log-dir`; null where the command leaves it open. */
  readonly logDir: string | null;
  readonly saves: ClusterSaves;
}

/** Where a run saves, so that it can go on from there. */
export interface ClusterSaves {
  /** `checkpoint.save`; undefined: where the starter says, null: nowhere. */
  readonly folder: string | null | undefined;
  /** `section.key=value` texts of how often, where the command does not say it. */
  readonly words: readonly string[];
  /** Whether the command says where to load from. */
  readonly loads: boolean;
}

/**
 * Checks the command of a run before it waits in a queue: it is resolved and planned as on the machines that it asks for.
 * @param restarts whether it may be started again, to go on from what it saved
 * @throws MbridgeError exit 2 or 3
 */
export async function checkCommand(
  words: readonly string[],
  machines: Machines,
  restarts: boolean,
): Promise<ClusterRun> {
  const { args, options } = parsePretrain(words);
  const request = await resolveRequest(args, options);
  const { config, origins, name } = request;
  const { nodes, gpus, cpuRanks } = machines;
  const device = gpus === undefined ? 'cpu' : 'cuda';
  refuseMachines(machines, config);
  const ranksPerNode = gpus === undefined ? (cpuRanks ?? 1) : gpus * config.dist.ranks_per_gpu;
  const plan = await planRequest(request, nodes * ranksPerNode, device);
  const saves = savesOf(config, (path) => origins.has(path), restarts);
  const subject = args[0] !== undefined && namesConfigFile(args[0]) ? args[0] : undefined;
  const given = config.dist.device === 'auto' ? ['--device', device] : [];
  const { log_dir: logDir } = config.logger;
  const file = options.config ?? subject;
  return { words: [...words, ...given], name, file, config, plan, ranksPerNode, logDir, saves };
}

/** One line of what was checked. */
export function describeRun({ plan, saves }: ClusterRun, { nodes, gpus }: Machines): string {
  const { layout, ranks } = plan;
  const most = ranks.reduce((bytes, rank) => Math.max(bytes, rank.totalBytes + rank.runtimeBytes), 0);
  const where =
    gpus === undefined ? `on the CPU${nodes === 1 ? '' : ` of ${nodes} nodes`}` : `on ${nodes} x ${gpus} GPUs`;
  const sizes = `tp ${layout.tp}, cp ${layout.cp}, dp ${layout.dp}, pp ${layout.pp}`;
  const unsaved = saves.folder === null ? '; it saves nothing, so that each start begins anew' : '';
  return `${ranks.length} ranks ${where}: ${sizes}; the fullest rank holds ${formatBytes(most)}${unsaved}`;
}

function parsePretrain(words: readonly string[]): { args: string[]; options: RunOptions & { maxRestarts?: number } } {
  const [verb, ...rest] = words;
  if (verb !== 'pretrain') {
    throw usage(
      verb === undefined ? 'no command to start' : `cannot write a job for mbridge ${verb}`,
      'give it after --, as in: -- pretrain qwen3-4b --tp-size 2',
    );
  }
  const command = addRestartOption(addRunOptions(new Command('mbridge pretrain')))
    .showSuggestionAfterError()
    .configureOutput({ outputError: () => undefined })
    .exitOverride()
    .parse(rest, { from: 'user' });
  const options: RunOptions & { maxRestarts?: number } = command.opts();
  if (options.nproc !== undefined) {
    throw usage('--nproc after --, and the job says how many ranks a node has', 'leave it out');
  }
  if (options.maxRestarts !== undefined) {
    throw usage('--max-restarts after --, and the job starts the ranks again', 'give --max-restarts before --');
  }
  return { args: command.args, options };
}

function refuseMachines({ gpus, cpuRanks, cpuFlag }: Machines, { dist }: RunConfig): void {
  if (gpus !== undefined && cpuRanks !== undefined) {
    throw usage(`--gpus-per-node and ${cpuFlag}`, `give one: each GPU has its ranks, ${cpuFlag} is for the CPU`);
  }
  if (gpus === undefined && cpuRanks === undefined) {
    throw usage('neither --gpus-per-node nor ' + cpuFlag, 'say how many GPUs a node has, or ranks on its CPU');
  }
  const wanted = gpus === undefined ? 'cpu' : 'cuda';
  if (dist.device !== 'auto' && dist.device !== wanted) {
    throw usage(
      `dist.device is ${dist.device}, and the job asks for ${gpus === undefined ? 'no GPUs' : 'GPUs'}`,
      `use --gpus-per-node with cuda, ${cpuFlag} with cpu`,
    );
  }
}

function savesOf(config: RunConfig, isSet: (path: string) => boolean, restarts: boolean): ClusterSaves {
  const { save, load } = config.checkpoint;
  const open = !isSet('checkpoint.save');
  if (load !== null && (open || load !== save) && restarts) {
    throw usage(
      `checkpoint.load=${load}, and a job that is started again would begin there each time`,
      'give checkpoint.load and checkpoint.save one folder; take weights alone with checkpoint.pretrained_checkpoint; or use --max-restarts 0 without --requeue',
    );
  }
  if (!open) return { folder: save, words: [], loads: load !== null };
  const { save_interval: interval, keep_last: kept } = withDefaultSaves(config, isSet).checkpoint;
  const often = { save_interval: interval, keep_last: kept };
  const words = Object.entries(often).flatMap(([key, value]) =>
    isSet(`checkpoint.${key}`) || value === null ? [] : [`checkpoint.${key}=${value}`],
  );
  return { folder: undefined, words, loads: load !== null };
}

/** A usage error of `mbridge launch`. */
export function usage(found: string, hint: string): MbridgeError {
  return new MbridgeError('usage', 'MB_USAGE', found, { hint });
}
