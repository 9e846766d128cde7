import type { RunConfig } from '../config/schema.js';
import type { DataIterator } from '../data/data-iterator.js';
import { MbridgeError } from '../base/errors.js';
import { STREAM } from '../engine/device.js';
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
  const { cfg, model, optimizer, data } = o;
  const { train_iters: iterations, max_skipped_in_a_row: maxSkipped, exit_interval: exitInterval } = cfg.train;
  const clock = new StepClock(o);
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
    pending = fetchStep(model.device, optimizer.state, step);
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

/** Times updates: by device events where work is asynchronous, else by the host's clock. */
class StepClock {
  readonly #o: TrainOptions;
  readonly #events: readonly number[];
  readonly #times = new Map<number, number>();
  readonly #reports: boolean;

  constructor(o: TrainOptions) {
    this.#o = o;
    const { device } = o.model;
    this.#reports = o.pgCollection.intraDistOpt.rank === 0;
    this.#events = device.kind === 'cuda' ? [0, 1, 2, 3].map(() => device.timedEvent()) : [];
    this.mark((o.startStep ?? 1) - 1);
  }

  mark(step: number): void {
    const event = this.#events[step % 4];
    if (event === undefined) this.#times.set(step, performance.now());
    else this.#o.model.device.record(event, STREAM.compute);
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
    const { device } = this.#o.model;
    const [a, b] = [this.#events[(step - 1) % 4], this.#events[step % 4]];
    if (a !== undefined && b !== undefined) return device.elapsedMs(a, b);
    const milliseconds = (this.#times.get(step) ?? 0) - (this.#times.get(step - 1) ?? 0);
    this.#times.delete(step - 1);
    return milliseconds;
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
