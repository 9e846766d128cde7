import { hostname } from 'node:os';
import { packageVersion } from '../../base/package-root.js';
import { configChanges, changedValue } from '../../config/changes.js';
import type { RunConfig } from '../../config/schema.js';
import { EXIT, MbridgeError, errorText } from '../../base/errors.js';
import { weakToken } from '../rendezvous/store-protocol.js';
import { ENV, type SavedCheckpoint, type WorkerEvent } from '../shared/messages.js';
import type { StopSignal } from '../shared/stop-signals.js';
import type { WorkerExit } from '../shared/worker-exit.js';
import type { FlightViews } from './flight-report.js';
import type { LaunchJob, NodePlace } from './job.js';
import type { GivenUp, Supervision } from './supervisor.js';

/**
 * What the launchers of several nodes say to each other, through a store of their own that node 0's serves: what that one
 * decides is a value of the store, and what the others have to say they tell it.
 */

/** What each node brings: all of it but the host must be the same. */
export interface NodeFacts {
  readonly host: string;
  readonly nproc: number;
  readonly version: string;
  readonly config: RunConfig;
}

/** An attempt begins, or there is none any more. */
export type Begin =
  | {
      readonly kind: 'go';
      readonly port: number;
      readonly runDir: string;
      readonly checkpoint: RunConfig['checkpoint'];
    }
  | { readonly kind: 'over'; readonly exitCode: number; readonly text: string };

/** What ends an attempt: a request to stop, its insistence, a failure. */
export type Order = 'stop' | 'kill' | 'fail';

export const KEY = {
  facts: (node: number): string => `facts/${node}`,
  begin: (attempt: number): string => `begin/${attempt}`,
  order: (attempt: number, order: Order): string => `${order}/${attempt}`,
  /** Never set: who waits for it hears that a node is lost. */
  never: 'never',
} as const;

/** How the workers of one node ended. */
export type NodeEnd = Supervision;

export type Told =
  | { readonly kind: 'event'; readonly rank: number; readonly event: WorkerEvent }
  | { readonly kind: 'saved'; readonly saved: SavedCheckpoint }
  | { readonly kind: 'done'; readonly rank: number }
  | { readonly kind: 'failed' }
  /** This node was asked to stop; `insists`: for the second time. */
  | { readonly kind: 'signal'; readonly signal: StopSignal; readonly insists: boolean }
  /** Of a rank, where the attempt failed: before `ended`. */
  | { readonly kind: 'flight'; readonly views: FlightViews }
  | { readonly kind: 'ended'; readonly end: NodeEnd };

/** What a node says of itself. */
export function nodeFacts({ nproc, config }: LaunchJob): NodeFacts {
  return { host: hostname(), nproc, version: packageVersion(), config };
}

/** The run's secret. @throws MbridgeError MB_NODE_TOKEN (exit 4) where there is none */
export function nodeToken(place: NodePlace, warn: (text: string) => void): string {
  const token = process.env[ENV.token] ?? '';
  if (token === '') {
    throw new MbridgeError(
      'environment',
      'MB_NODE_TOKEN',
      `${ENV.token} is not set, and ${place.count} nodes need it`,
      {
        hint: 'give every node the same random text, with which they prove that they belong together: openssl rand -hex 16',
      },
    );
  }
  const weak = weakToken(token);
  if (weak !== undefined && place.rank === 0) warn(weak);
  return token;
}

/** In what a node differs from node 0; undefined where it does not. Where a node logs and saves is node 0's to say. */
export function differenceOf(first: NodeFacts, other: NodeFacts, node: number): string | undefined {
  const say = (what: string, a: unknown, b: unknown): string =>
    `${what} is ${changedValue(a)} on node 0 and ${changedValue(b)} on node ${node} (${other.host})`;
  if (first.version !== other.version) return say('the version of mbridge', first.version, other.version);
  if (first.nproc !== other.nproc) return say('--nproc', first.nproc, other.nproc);
  const changes = configChanges(first.config, other.config);
  const counted = changes.filter(({ key }) => !key.startsWith('logger.') && key !== 'checkpoint.save');
  const [change] = counted;
  if (change === undefined) return undefined;
  const more = counted.length === 1 ? '' : `, and ${counted.length - 1} more differ`;
  return `${say(change.key, change.a, change.b)}${more}`;
}

export function nodeLost(nodes: string): GivenUp {
  const message = `${nodes} was lost: its launcher was killed, or the machine or the network between is gone`;
  const hint = 'start the run again on all nodes; where it saved, checkpoint.load goes on from there';
  return { code: 'MB_NODE_LOST', exitCode: EXIT.worker, message, hint, again: false };
}

/** JSON keeps no errors: what is known of one that could not be started. */
export function toldExit(exit: WorkerExit): WorkerExit {
  const { spawnError, stderrTail, ...rest } = exit;
  const facts =
    spawnError === undefined ? {} : { spawnError: Object.assign({ message: spawnError.message }, spawnError) };
  return { ...rest, ...facts, stderrTail: stderrTail.map((line) => line.slice(0, LONGEST_LINE)) } as WorkerExit;
}

const LONGEST_LINE = 2000;

/** For the nodes that print nothing else: how the run ended; empty where all is well. */
export function endText({ result, exitCode }: { result: WorkerEvent; exitCode: number }): string {
  const { error, signal } = result as { error?: { code?: string; message?: string }; signal?: string };
  if (exitCode === EXIT.ok) return '';
  if (error !== undefined)
    return `${errorText({ code: error.code ?? 'MB_INTERNAL', message: error.message ?? '' })}; node 0 says more`;
  return signal === undefined ? `the run ended with exit code ${exitCode}` : `the run was stopped by ${signal}`;
}
