import { join } from 'node:path';
import { MetricsFile } from '../shared/metrics-file.js';
import { LOG_FILE, STDERR_FILE, rankFolder } from '../shared/run-folder.js';
import { listenForSignals, type StopSignal } from '../shared/stop-signals.js';
import type { FlightViews } from './flight-report.js';
import type { LaunchJob, LaunchResult, NodePlace } from './job.js';
import { Leader, type LeaderListener } from './leader.js';
import { endText, nodeFacts, nodeToken } from './node-messages.js';
import type { Supervision, Supervisor } from './supervisor.js';
import type { WorkerListener } from './worker-process.js';

/** Asks the run to stop: by a signal of this process, by the first of another node, or by one that insists. */
export interface StopRequest {
  request: (signal: StopSignal, from?: 'here' | 'elsewhere' | 'insisting') => void;
}

/** Waits for the launchers of all other nodes. */
export async function gatherNodes(job: LaunchJob, place: NodePlace): Promise<Leader> {
  const stderr = job.stderr ?? process.stderr;
  const warn = (text: string): void => void stderr.write(`warning: ${text}\n`);
  return Leader.gather(place, nodeToken(place, warn), nodeFacts(job), job.config.dist.timeout_s * 1000, warn);
}

/** The other nodes are told how the run ended. */
export async function over(leader: Leader | null, attempt: number, ended: LaunchResult): Promise<LaunchResult> {
  await leader?.over(attempt, ended.exitCode, endText(ended));
  return ended;
}

/** Signals of this node, and of the others. */
export function bothSignals(leader: Leader): typeof listenForSignals {
  return (heard) => {
    leader.listen({
      told: (message) => {
        if (message.kind === 'signal') heard(message.signal);
      },
      lost: () => undefined,
    });
    const unlisten = listenForSignals(heard);
    return () => {
      leader.listen(undefined);
      unlisten();
    };
  };
}

/** What the other nodes tell is as if it came from workers of this one. */
export function othersListener({
  listener,
  supervisor,
  stopped,
  runDir,
  warn,
}: {
  listener: WorkerListener;
  supervisor: Supervisor;
  stopped: StopRequest;
  runDir: string;
  warn: (text: string) => void;
}): LeaderListener {
  const metrics = new MetricsFile(runDir, warn);
  return {
    lost: (why) => {
      supervisor.giveUp(why);
    },
    told: (message) => {
      switch (message.kind) {
        case 'event':
          listener.event(message.rank, message.event);
          metrics.add(message.event);
          return;
        case 'saved':
          listener.saved(message.saved);
          return;
        case 'done':
          listener.done(message.rank);
          return;
        case 'failed':
          supervisor.fail();
          return;
        case 'signal':
          stopped.request(message.signal, message.insists ? 'insisting' : 'elsewhere');
      }
    },
  };
}

/** How the workers of all nodes ended. */
export function withOthers(
  own: Supervision,
  others: readonly Supervision[],
  supervisor: Supervisor,
  begun: readonly number[],
): Supervision {
  const all = [own, ...others];
  const exits = all
    .flatMap(({ exits: of }) => of)
    .map((exit) => ({ ...exit, step: exit.step || (begun[exit.rank] ?? 0) }));
  // Since the workers here ended, another node may have been lost.
  const givenUp = supervisor.givenUp ?? all.find((each) => each.givenUp !== undefined)?.givenUp;
  return {
    exits: exits.sort((a, b) => a.rank - b.rank),
    stop: own.stop,
    stubborn: all.flatMap(({ stubborn }) => stubborn),
    ...(givenUp === undefined ? {} : { givenUp }),
  };
}

/** What the flight recorders of all nodes' ranks show. */
export function withOthersViews(own: FlightViews, others: readonly FlightViews[]): FlightViews {
  const all = [own, ...others];
  return { atFailure: all.flatMap((views) => views.atFailure), atEnd: all.flatMap((views) => views.atEnd) };
}

export function filesElsewhere(runDir: string, rank: number, node = 'another node'): { log: string; stderr: string } {
  const folder = rankFolder(runDir, rank);
  return { log: `${join(folder, LOG_FILE)} on ${node}`, stderr: `${join(folder, STDERR_FILE)} on ${node}` };
}
