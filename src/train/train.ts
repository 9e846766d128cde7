import type { RunConfig } from '../config/schema.js';
import type { DataIterator } from '../data/data-iterator.js';
import { MbridgeError } from '../base/errors.js';
import { STREAM } from '../engine/device.js';
import type { EventLease } from '../engine/event-lease.js';
import type { OptimizerHyper } from '../engine/ops.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import type { DistributedOptimizer } from '../model/optim/distributed-optimizer.js';
import type { StepEvent } from '../job/shared/messages.js';
import { devicesOf, fetchStep, stepEvent, type StepResult } from './metrics.js';
import type { Groups } from './setup.js';

export interface TrainOptions {
  cfg: RunConfig;
  model: DistributedModel;
  optimizer: DistributedOptimizer;
  /** As given by setupOptimizer; the device follows it. */
  scheduler: OptimizerHyper;
  data: DataIterator;
  pgCollection: Groups;
  /** First update to run, from 1; after a resume, the one that follows the checkpoint's. */
  startStep?: number;
  /** Called on the model's first rank for each update that is shown, in order, one update late. */
  onStep?: (event: StepEvent) => void;
  /** Called on every rank as an update begins. */
  onBegin?: (step: number) => void;
  /** Awaited on every rank once an update is enqueued, before the next begins: where state is saved. */
  onUpdate?: (step: number) => Promise<void>;
  /** Awaited on every rank after each update but the last: whether the run ends with it. All ranks get the same answer. */
  endsAfter?: (step: number) => Promise<boolean>;
  /** Whether this rank wants to stop; the ranks agree, and all stop after the same update, up to two later. */
  wantsStop?: () => boolean;
}

export interface TrainResult {
  /** The last update that was run. */
  readonly step: number;
  readonly last: StepResult | null;
  readonly stopped: boolean;
}

/**
 * The training loop. The host never waits for the update it has just started: it looks at the one before, so the
 * device is kept busy and all ranks still see every result at the same point.
 */
export async function train(o: TrainOptions): Promise<TrainResult> {
  const clock = new StepClock(o);
  try {
    return await loop(o, clock);
  } finally {
    clock.end();
  }
}

async function loop(o: TrainOptions, clock: StepClock): Promise<TrainResult> {
  const { cfg, model, optimizer, data } = o;
  const { train_iters: iterations, max_skipped_in_a_row: maxSkipped, exit_interval: exitInterval } = cfg.train;
  let pending: Promise<StepResult> | null = null;
  let last: StepResult | null = null;
  let step = (o.startStep ?? 1) - 1;
  let stopped = false;

  const settle = async (result: Promise<StepResult>, final: boolean): Promise<void> => {
    last = await result;
    const diverged = last.skippedInRow >= maxSkipped;
    clock.report(last, final || diverged);
    stopped ||= last.stopVotes > 0;
    if (diverged) throw divergence(last);
  };

  while (step < iterations && !stopped) {
    step++;
    o.onBegin?.(step);
    model.forwardBackward(data.next(step), { hooks: optimizer.hooks });
    optimizer.step(o.wantsStop?.() ?? false);
    clock.mark(step);
    const before: Promise<StepResult> | null = pending;
    pending = fetchStep(optimizer, step);
    // Where several fail at once, the one awaited next is reported; this one is looked at a step later, if ever.
    pending.catch(() => undefined);
    if (before !== null) await settle(before, false);
    await o.onUpdate?.(step);
    stopped ||= exitInterval !== null && step % exitInterval === 0;
    if (!stopped && step < iterations) stopped = (await o.endsAfter?.(step)) ?? false;
  }
  if (pending !== null) await settle(pending, true);
  return { step, last, stopped: stopped && step < iterations };
}

/** Moments in time that are kept: two updates are enqueued at most before the first is looked at. */
const TIMES = 4;

/** Times updates by the device's events, since its work is asynchronous. */
class StepClock {
  readonly #o: TrainOptions;
  readonly #events: EventLease;
  readonly #reports: boolean;

  constructor(o: TrainOptions) {
    this.#o = o;
    this.#reports = o.pgCollection.intraDistOpt.rank === 0;
    this.#events = o.model.device.lease(TIMES, { timed: true });
    this.mark((o.startStep ?? 1) - 1);
  }

  mark(step: number): void {
    this.#o.model.device.record(this.#events.at(step % TIMES), STREAM.compute);
  }

  end(): void {
    this.#events.end();
  }

  /** @param final whether no later one follows: it is shown whatever the interval */
  report(result: StepResult, final: boolean): void {
    const { cfg, model, data, onStep, pgCollection } = this.#o;
    const milliseconds = this.#between(result.step);
    const { log_interval: interval } = cfg.logger;
    const shown = final || result.step % interval === 0;
    if (!this.#reports || onStep === undefined || !shown) return;
    const run = {
      milliseconds,
      devices: devicesOf(cfg, pgCollection.intraDistOpt.size, model.device.kind),
      peakTflops: model.device.info.peakTflops,
      epoch: data.epoch(result.step),
    };
    onStep(stepEvent(cfg, result, run));
  }

  #between(step: number): number {
    const events = this.#events;
    return this.#o.model.device.elapsedMs(events.at((step - 1) % TIMES), events.at(step % TIMES));
  }
}

function divergence(result: StepResult): MbridgeError {
  return new MbridgeError(
    'worker',
    'MB_DIVERGED',
    `the gradient norm was not finite in ${result.skippedInRow} updates in a row, the last is ${result.step}`,
    {
      hint: 'lower optimizer.lr, lengthen scheduler.lr_warmup_iters, or look at the data of these updates; train.max_skipped_in_a_row allows more',
      details: { step: result.step, skippedInRow: result.skippedInRow },
    },
  );
}
