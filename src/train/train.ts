import { MbridgeError } from '../base/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { BatchSource } from '../data/micro-batch.js';
import { STREAM, type Device } from '../engine/device.js';
import type { EventLease } from '../engine/event-lease.js';
import type { OptimizerHyper } from '../engine/ops.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import type { DistributedOptimizer } from '../model/optim/distributed-optimizer.js';
import type { StepEvent } from '../job/shared/messages.js';
import { devicesOf, fetchStep, stepEvent, type StepResult } from './metrics.js';
import type { Groups } from './setup.js';
import { SkippedUpdates } from './skipped-updates.js';
import type { StepTrace } from './step-trace.js';

/** Something to do every so many updates. */
export interface Every {
  /** After the updates that are multiples of it. */
  readonly every: number;
  /** Awaited on every rank once the update is enqueued, before the next begins. */
  readonly act: (step: number) => void | Promise<void>;
  /** Whether its time is not part of the next update's. The update is looked at, and shown, before. */
  readonly apart?: boolean;
}

export interface TrainOptions {
  cfg: RunConfig;
  model: DistributedModel;
  optimizer: DistributedOptimizer;
  /** As given by setupOptimizer. An update follows what it holds as the update is enqueued. */
  scheduler: OptimizerHyper;
  /** The learning rate of update `step` (from 1), the same on every rank, in the place of the schedule's. */
  lr?: (step: number) => number;
  data: BatchSource;
  pgCollection: Groups;
  /** First update to run, from 1; after a resume, the one that follows the checkpoint's. */
  startStep?: number;
  /** The last update to run; `train.train_iters` by default. */
  until?: number;
  /** Called on the model's first rank for each update that is shown, in order, one update late. */
  onStep?: (event: StepEvent) => void;
  /** Called on every rank for each update, shown or not, in order, one update late. */
  onResult?: (result: StepResult) => void;
  /**
   * Called on every rank as an update begins, with the milliseconds of this rank's own work (its time less that in which
   * it waited for others) in an update before, where that was measured.
   */
  onBegin?: (step: number, ownMs: number | null) => void;
  /** Records some of the updates. */
  trace?: StepTrace | null;
  /** What to do every so many updates, in this order: save, evaluate, check. */
  every?: readonly Every[];
  /** Awaited on every rank after each update but the last: whether the run ends with it. All ranks get the same answer. */
  endsAfter?: (step: number) => Promise<boolean>;
  /** Whether this rank wants to stop; the ranks agree, and all stop after the same update, up to two later. */
  wantsStop?: () => boolean;
}

export interface TrainResult {
  /** The last update that was run. */
  readonly step: number;
  readonly last: StepResult | null;
  /** Of the last update in which a token counted. */
  readonly loss: number | null;
  /** Of the first. */
  readonly firstLoss: number | null;
  readonly stopped: boolean;
  /** For which the host waited for samples. */
  readonly dataSeconds: number;
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
  const { max_skipped_in_a_row: maxSkipped, exit_interval: exitInterval } = cfg.train;
  const { until: iterations = cfg.train.train_iters, every = [] } = o;
  let pending: Promise<StepResult> | null = null;
  let last: StepResult | null = null;
  let loss: number | null = null;
  let firstLoss: number | null = null;
  const skipped = new SkippedUpdates(maxSkipped);
  const fresh = (o.startStep ?? 1) === 1;
  let step = (o.startStep ?? 1) - 1;
  let stopped = false;

  const settle = async (result: Promise<StepResult>, shown: boolean): Promise<void> => {
    last = await result;
    const failed = skipped.note(last);
    clock.report(last, shown || failed);
    o.onResult?.(last);
    stopped ||= last.stopVotes > 0;
    if (failed) throw skipped.cause(last, await optimizer.squaredWeights());
    if (last.tokens === 0) return;
    loss = last.loss;
    firstLoss ??= loss;
  };

  const requireCounted = async (final: StepResult | null): Promise<void> => {
    if (final === null || !fresh || !skipped.nothingCounted) return;
    throw skipped.cause(final, await optimizer.squaredWeights());
  };

  while (step < iterations && !stopped) {
    step++;
    o.onBegin?.(step, clock.begin(step));
    o.trace?.begin(step);
    const { device } = model;
    const { spans } = device;
    device.phase(step, 'the reading of samples');
    const batches = spans.onHost({ name: 'read samples', track: 'data', args: { step } }, () =>
      clock.timeData(step, () => data.next(step)),
    );
    spans.onDevice({ name: `update ${step}`, track: 'updates' }, STREAM.compute, () => {
      device.phase(step, 'the forward and backward passes');
      model.forwardBackward(batches, { hooks: optimizer.hooks });
      if (o.lr !== undefined) follow(o.scheduler, step, o.lr(step));
      device.phase(step, 'the optimizer');
      spans.onDevice({ name: 'optimizer', track: 'compute' }, STREAM.compute, () => {
        optimizer.step(o.wantsStop?.() ?? false);
      });
    });
    device.phase(step, 'the saves and evaluations');
    clock.mark(step);
    o.trace?.end(step);
    const before: Promise<StepResult> | null = pending;
    pending = fetchStep(optimizer, step);
    // Where several fail at once, the one awaited next is reported; this one is looked at a step later, if ever.
    pending.catch(() => undefined);
    if (before !== null) await settle(before, false);
    for (const { act, apart = false } of every.filter((each) => step % each.every === 0)) {
      if (apart && pending !== null) {
        await settle(pending, true);
        pending = null;
      }
      await act(step);
      if (apart) clock.restart(step);
    }
    stopped ||= exitInterval !== null && step % exitInterval === 0;
    if (!stopped && step < iterations) stopped = (await o.endsAfter?.(step)) ?? false;
  }
  if (pending !== null) await settle(pending, true);
  await requireCounted(last);
  return { step, last, loss, firstLoss, stopped: stopped && step < iterations, dataSeconds: clock.dataSeconds };
}

/** Makes the schedule one of `lr`, whatever the number of the updates that were skipped. */
function follow(scheduler: OptimizerHyper, step: number, lr: number): void {
  if (!Number.isFinite(lr) || lr < 0) {
    throw new MbridgeError('config', 'MB_LEARNING_RATE', `the program's learning rate of update ${step} is ${lr}`, {
      hint: 'lr(update) must return a number that is not negative',
    });
  }
  Object.assign(scheduler, { lr, decayStyle: 'constant', warmupIters: 0 });
}

/** Of the whole GPU, whoever uses it; on a CPU of this process. */
function memoryInUse(device: Device): number {
  if (device.kind === 'cpu') return process.memoryUsage.rss();
  const { totalBytes, freeBytes } = device.memory();
  return totalBytes - freeBytes;
}

/** Of so many updates of a GPU one is looked at for its waits, which takes events. */
const GPU_SAMPLE = 5;

/** Moments in time that are kept: two updates are enqueued at most before the first is looked at. */
const TIMES = 4;

/** Times updates by the device's events, since its work is asynchronous. */
class StepClock {
  readonly #o: TrainOptions;
  /** First the ends of updates, then the restarts. */
  readonly #events: EventLease;
  /** Updates after which the clock was started again. */
  readonly #restarts = new Set<number>();
  /** What the samples of an update took, by its moment. */
  readonly #dataMs = new Float64Array(TIMES);
  readonly #reports: boolean;
  readonly #started = performance.now();
  #allDataMs = 0;
  /** The update in which waits are measured, until it was looked at; then what its own work took. */
  #measured: number | null = null;
  #ownMs: number | null = null;

  constructor(o: TrainOptions) {
    this.#o = o;
    this.#reports = o.pgCollection.intraDistOpt.rank === 0;
    this.#events = o.model.device.lease(2 * TIMES, { timed: true });
    this.mark((o.startStep ?? 1) - 1);
  }

  /** @returns the time of this rank's own work in an update since the last call */
  begin(step: number): number | null {
    const { kind, stalls } = this.#o.model.device;
    if (this.#measured === null && step % (kind === 'cuda' ? GPU_SAMPLE : 1) === 0) {
      this.#measured = step;
      stalls.begin();
    }
    const ownMs = this.#ownMs;
    this.#ownMs = null;
    return ownMs;
  }

  mark(step: number): void {
    if (step === this.#measured) this.#o.model.device.stalls.end();
    this.#o.model.device.record(this.#events.at(step % TIMES), STREAM.compute);
  }

  timeData<T>(step: number, read: () => T): T {
    const begin = performance.now();
    const batches = read();
    const ms = performance.now() - begin;
    this.#dataMs[step % TIMES] = ms;
    this.#allDataMs += ms;
    return batches;
  }

  get dataSeconds(): number {
    return this.#allDataMs / 1000;
  }

  /** What was done since update `step` ended is not the next one's time. */
  restart(step: number): void {
    this.#o.model.device.record(this.#events.at(TIMES + (step % TIMES)), STREAM.compute);
    this.#restarts.add(step);
  }

  end(): void {
    this.#events.end();
    this.#o.model.device.stalls.close();
  }

  /** @param always whether it is shown whatever the interval */
  report(result: StepResult, always: boolean): void {
    const { cfg, model, data, onStep, pgCollection } = this.#o;
    const milliseconds = this.#between(result.step);
    if (result.step === this.#measured) {
      this.#ownMs = Math.max(0, milliseconds - model.device.stalls.milliseconds());
      this.#measured = null;
    }
    const { log_interval: interval } = cfg.logger;
    const shown = always || result.step % interval === 0;
    if (!this.#reports || onStep === undefined || !shown) return;
    const { startStep = 1, until = cfg.train.train_iters } = this.#o;
    const elapsedS = (performance.now() - this.#started) / 1000;
    const run = {
      milliseconds,
      dataMs: this.#dataMs[result.step % TIMES] as number,
      devices: devicesOf(cfg, pgCollection.intraDistOpt.size, model.device.kind),
      peakTflops: model.device.info.peakTflops,
      epoch: data.epoch?.(result.step) ?? 0,
      time: new Date().toISOString(),
      elapsedS,
      etaS: (elapsedS / (result.step - startStep + 1)) * (until - result.step),
      memoryBytes: memoryInUse(model.device),
    };
    onStep(stepEvent(cfg, result, run));
  }

  #between(step: number): number {
    const events = this.#events;
    const restarted = this.#restarts.delete(step - 1);
    const begin = events.at((restarted ? TIMES : 0) + ((step - 1) % TIMES));
    return this.#o.model.device.elapsedMs(begin, events.at(step % TIMES));
  }
}
