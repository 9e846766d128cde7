import { RunCheckpoints } from '../checkpoint/run/run-checkpoints.js';
import { CommRuntime } from '../groups/comm/comm-runtime.js';
import type { RunLayout } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import type { DataIterator } from '../data/data-iterator.js';
import type { BatchSource } from '../data/micro-batch.js';
import type { Device } from '../engine/device.js';
import { openDevice } from '../engine/open-device.js';
import type { OptimizerHyper } from '../engine/ops.js';
import type { HeadKind } from '../families/decoder.js';
import type { HyperCommGrid } from '../groups/grid/hyper-comm-grid.js';
import { NON_MEMBER } from '../groups/grid/process-group.js';
import type { WorkerContext } from '../job/worker/context.js';
import type { Loss } from '../model/blocks/loss.js';
import type { GenerationSizes } from '../model/decode/kv-cache.js';
import type { DistributedOptimizer } from '../model/optim/distributed-optimizer.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import { sampleSizes } from './samples.js';
import { LossWatch } from './loss-watch.js';
import type { StepResult } from './metrics.js';
import { PlacementCheck } from './placement-check.js';
import { heldBuckets, placedBuckets, planPlacement } from './placement-plan.js';
import { provePlacement } from './placement-proof.js';
import {
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
  type Groups,
  type RunDataOptions,
} from './setup.js';
import { StepTrace } from './step-trace.js';
import { train, type Every, type TrainResult } from './train.js';

/** Samples of a program's own, and the seed to shuffle them by. */
export type OwnSamples = Pick<RunDataOptions, 'dataset' | 'shuffleSeed'>;

export interface OpenRunOptions {
  /** One that is open already, which the run then closes; by default the context's. */
  readonly device?: Device;
  /** False: neither resumes nor saves, whatever the `checkpoint` section says. Pretrained weights are loaded all the same. */
  readonly checkpoints?: boolean;
  /** Read instead of what the configuration's `dataset` names. */
  readonly samples?: OwnSamples;
  /** What the model is trained to make small; cross entropy by default. */
  readonly loss?: Loss;
  /** Rows that the model can generate at once, and their length; by default what the configuration's samples take. */
  readonly generation?: GenerationSizes;
  /** `value` for a value or reward model: see {@link provideDistributedModel}. */
  readonly head?: HeadKind;
  /** Trains the buckets whose name it matches, and freezes the others; all are trained by default. See StageSpec. */
  readonly trainable?: RegExp;
  /** The learning rate of an update (from 1), the same on every rank, in the place of section `scheduler`'s. */
  readonly lr?: (update: number) => number;
}

export interface RunTrainOptions {
  /** The last update to run; `train.train_iters` by default. */
  readonly until?: number;
  /** Where batches come from; the configuration's dataset by default. */
  readonly data?: BatchSource;
  /** What else to do every so many updates, on every rank. */
  readonly every?: readonly Every[];
}

interface RunParts {
  readonly context: WorkerContext;
  readonly device: Device;
  readonly runtime: CommRuntime;
  readonly layout: RunLayout;
  readonly grid: HyperCommGrid;
  readonly pgCollection: Groups;
  readonly model: DistributedModel;
  readonly optimizer: DistributedOptimizer;
  readonly scheduler: OptimizerHyper;
  readonly data: DataIterator;
  readonly checkpoints: RunCheckpoints | null;
  /** ln of this is the loss of guessing; null where the loss is another than cross entropy. */
  readonly vocabulary: number | null;
  readonly lr: ((update: number) => number) | undefined;
}

/** Seconds that a run has spent, on this rank: in updates (in them waiting for samples), saves, and whatever else it did in between. */
export interface RunTimes {
  readonly updates: number;
  readonly data: number;
  readonly saves: number;
  readonly others: number;
}

/**
 * Opens what a configuration asks for, on this rank of all that the job has: device, groups, model, optimizer, data and
 * checkpoints, resumed where there is something to resume from. Every rank calls it.
 * @throws MbridgeError as its parts do; the other ranks then fail too
 */
export async function openRun(context: WorkerContext, options: OpenRunOptions = {}): Promise<Run> {
  const { config: cfg, rank, worldSize, store, log, memory } = context;
  const device = options.device ?? openDevice(context.device, context.deviceIndex, context.threads);
  const { timeout_s: timeoutSeconds, check_collectives: checkCollectives } = cfg.dist;
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds, checkCollectives });
  const { head = 'language' } = options;
  const onSaved = context.saved.bind(context);
  let checkpoints: RunCheckpoints | null = null;
  try {
    const { layout, grid, pgCollection } = await setupGroups(cfg, { runtime, worldSize });
    runtime.watch();
    log.debug({ groups: pgCollection, coordinates: grid.coordinates(rank) }, 'process groups are made');
    if (options.checkpoints !== false) {
      const facts = { cfg, layout, device, store, groups: pgCollection, log, memory, onSaved, head };
      checkpoints = await RunCheckpoints.open(facts);
    }
    const { loss, trainable } = options;
    const checkpoint = checkpoints?.resume ?? null;
    const generation = options.generation ?? sampleSizes(cfg, layout.dp);
    const model = await provideDistributedModel(cfg, {
      ...{ pgCollection, device, checkpoint, head },
      ...(loss === undefined ? {} : { loss }),
      ...(trainable === undefined ? {} : { trainable }),
      ...(generation === undefined ? {} : { generation }),
    });
    proveOwnPlacement(cfg, model, grid, pgCollection, rank);
    const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection });
    const data = await setupRunData(cfg, pgCollection, { ...checkpoints?.position, ...options.samples });
    await checkpoints?.begin(optimizer.state, data);
    log.debug({ data: data.describe(), position: checkpoints?.position }, 'model, optimizer and data are ready');
    const vocabulary = loss === undefined ? cfg.model.vocab_size : null;
    const built = { model, optimizer, scheduler, data, checkpoints, vocabulary, lr: options.lr };
    return new Run({ context, device, runtime, layout, grid, pgCollection, ...built });
  } catch (error) {
    return runtime.abandon(checkpoints?.explain(error) ?? error);
  }
}

/** Of the groups that this rank has in fact. */
function proveOwnPlacement(
  cfg: RunConfig,
  model: DistributedModel,
  grid: HyperCommGrid,
  pgs: Groups,
  rank: number,
): void {
  const { spec, buffer } = model.stage;
  const plan = planPlacement(cfg.model, spec, grid);
  const buckets = placedBuckets(heldBuckets(buffer.buckets), pgs.tp.rank, (group, bucket) => {
    if (group === 'dpCp') return bucket.group.ranks;
    const found = pgs.get(group);
    return found === null || found === NON_MEMBER ? [rank] : found.ranks;
  });
  const ranks = plan.ranks.map((each) => {
    const totals = { ...each.totals, ranks: pgs.intraDistOpt.ranks };
    return each.rank === rank ? { ...each, buckets, totals } : each;
  });
  provePlacement({ ...plan, ranks }, rank);
}

/**
 * A run that is open: what {@link openRun} made, a training loop over it, and its end. Every rank makes the same calls.
 * Whatever fails leaves through {@link Run.abandon}, so that no other rank waits for this one.
 */
export class Run {
  readonly context: WorkerContext;
  readonly config: RunConfig;
  readonly device: Device;
  readonly layout: RunLayout;
  readonly grid: HyperCommGrid;
  readonly pgCollection: Groups;
  readonly model: DistributedModel;
  readonly optimizer: DistributedOptimizer;
  readonly scheduler: OptimizerHyper;
  readonly data: DataIterator;
  readonly checkpoints: RunCheckpoints | null;
  /** Makes the run's groups, and those of further models of the program; {@link CommRuntime.watch} it again after these. */
  readonly runtime: CommRuntime;
  readonly #placement: PlacementCheck | null;
  readonly #watch: LossWatch | null;
  readonly #ms = { updates: 0, data: 0, saves: 0, others: 0 };
  #step: number;
  #finished = false;
  #stopRequested = false;
  readonly #lr: RunParts['lr'];

  /** Use {@link openRun}. */
  constructor(parts: RunParts) {
    this.context = parts.context;
    this.config = parts.context.config;
    this.device = parts.device;
    this.layout = parts.layout;
    this.grid = parts.grid;
    this.pgCollection = parts.pgCollection;
    this.model = parts.model;
    this.optimizer = parts.optimizer;
    this.scheduler = parts.scheduler;
    this.data = parts.data;
    this.checkpoints = parts.checkpoints;
    this.runtime = parts.runtime;
    this.#lr = parts.lr;
    this.#step = (parts.checkpoints?.position.startStep ?? 1) - 1;
    this.#watch = parts.vocabulary === null ? null : new LossWatch(parts.vocabulary);
    this.#placement = this.config.dist.check_placement ? new PlacementCheck(this.model, this.pgCollection) : null;
  }

  /** The last update that was run; after a resume, the checkpoint's. */
  get step(): number {
    return this.#step;
  }

  get times(): RunTimes {
    const { updates, data, saves, others } = this.#ms;
    return { updates: updates / 1000, data: data / 1000, saves: saves / 1000, others: others / 1000 };
  }

  /**
   * Trains from the update after {@link step} on: until it is done, a signal asks for the end, or the time is up. Step
   * events go to the context. May be called again.
   */
  async train({ until, data = this.data, every = [] }: RunTrainOptions = {}): Promise<TrainResult> {
    const { context, config: cfg, model, optimizer, scheduler, pgCollection } = this;
    const lastMillisecond = (cfg.train.exit_duration_in_mins ?? Infinity) * 60_000;
    const copied = this.checkpoints?.copyInterval ?? null;
    // The last thing to do after an update, so that a copy counts once its numbers are shown: a CPU has them at once.
    const apart = this.device.kind === 'cpu';
    const copies: Every[] =
      copied === null
        ? []
        : [{ every: copied, apart, act: (step) => this.#timed('saves', () => this.checkpoints?.copy(step)) }];
    const own: Every[] = [
      { every: 1, act: (step) => this.#placement?.check(step) },
      { every: 1, act: (step) => this.#timed('saves', () => this.checkpoints?.onUpdate(step)) },
    ];
    const others = every.map((each) => ({
      ...each,
      act: (step: number) => this.#timed('others', () => each.act(step)),
    }));
    const trace = StepTrace.of(cfg, context, this.device, this.grid.coordinates(context.rank));
    const started = performance.now() - this.#ms.saves - this.#ms.others;
    try {
      const result = await train({
        ...{ cfg, model, optimizer, scheduler, data, pgCollection, trace },
        startStep: this.#step + 1,
        ...(until === undefined ? {} : { until }),
        onStep: (event) => context.emit(event),
        onResult: (result) => {
          this.#look(result);
          this.checkpoints?.told(result.step);
        },
        onBegin: (step, ownMs) => {
          context.progress(step, ownMs === null ? undefined : { ms: ownMs, stage: pgCollection.pp.rank });
        },
        endsAfter: (step) => context.endsAfter(step),
        // The clock counts from this process's start.
        wantsStop: () => this.#stopRequested || performance.now() > lastMillisecond,
        ...(this.#lr === undefined ? {} : { lr: this.#lr }),
        every: [...own, ...others, ...copies],
      });
      trace?.write();
      this.#step = result.step;
      this.#ms.updates += performance.now() - started - this.#ms.saves - this.#ms.others;
      this.#ms.data += result.dataSeconds * 1000;
      return result;
    } catch (error) {
      this.abandon(error);
    }
  }

  /** Ends {@link train} for all ranks after the same update, up to two later, as a signal would. Any one rank may call it. */
  requestStop(): void {
    this.#stopRequested = true;
  }

  /** Ends the training: saves the last update where the run saves, and waits until that is committed. */
  async finish(): Promise<void> {
    if (this.#finished) return;
    this.#finished = true;
    try {
      await this.#timed('saves', () => this.checkpoints?.finish(this.#step));
    } catch (error) {
      this.abandon(error);
    }
  }

  /** {@link finish}, and gives everything back. */
  async close(): Promise<void> {
    await this.finish();
    try {
      this.data.close();
      this.#placement?.dispose();
      this.model.dispose();
      this.runtime.destroyAll();
      this.device.close();
    } catch (error) {
      this.abandon(error);
    }
  }

  /** Says of an update what somebody should look at. */
  #look(result: StepResult): void {
    const warning = this.pgCollection.intraDistOpt.rank === 0 ? this.#watch?.note(result) : null;
    if (warning == null) return;
    this.context.log.warn({ event: warning.type }, warning.text);
    this.context.emit({ ...warning });
  }

  async #timed(what: 'saves' | 'others', act: () => void | Promise<void>): Promise<void> {
    const begin = performance.now();
    await act();
    this.#ms[what] += performance.now() - begin;
  }

  /** The way out after a failure: makes the other ranks fail too, and throws the cause. */
  abandon(error: unknown): never {
    this.runtime.abandon(error);
  }
}
