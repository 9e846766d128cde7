import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import { Ops, type OptimizerHyper } from '../../engine/ops.js';
import { adamwRounded, type MatrixPlace } from '../../engine/optimizer-ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { BucketHooks } from '../parameters/bucket-hooks.js';
import { bucketPieces } from '../parameters/bucket-pieces.js';
import { nameKey } from '../parameters/weight-source.js';
import type { EventLease } from '../../engine/event-lease.js';
import type { StepTotals } from '../totals/step-totals.js';
import type { BucketState, OptimizerState } from './optimizer-state.js';
import type { Bucket } from '../parameters/bucket.js';
import { countedInNorm, gradientSums } from '../parameters/gradient-sums.js';

export interface OptimizerGroups {
  tp: CommGroup;
  /** First and last stage, where an embedding is tied across them; null on the stages between. */
  embd: CommGroup | null;
  /** All ranks of this model: a step's totals are summed over these. */
  model: CommGroup;
}

export interface OptimizerOptions {
  ops: Ops;
  state: OptimizerState;
  totals: StepTotals;
  groups: OptimizerGroups;
  hyper: OptimizerHyper;
  weightDecay: number;
  /** Of the random bits by which state in bf16 is rounded. */
  seed: number;
  /** Reduce gradients as soon as a bucket has its last contribution, and gather parameters while the next forward runs. */
  overlap: { gradReduce: boolean; paramGather: boolean };
}

/**
 * AdamW whose state is sharded over the replicas. A step never reads a device value on the host: norm, clipping, the
 * skip of a non-finite update and the learning rate are computed where they are used.
 */
export class DistributedOptimizer {
  readonly state: OptimizerState;
  readonly totals: StepTotals;
  /** To be passed to every forwardBackward of the model: hides reduction and gathering behind its work. */
  readonly hooks: BucketHooks;
  readonly #o: OptimizerOptions;
  readonly #device: Device;
  readonly #dataOps: Ops;
  /** One a bucket that is trained: the end of what the data stream last did with it. */
  readonly #events: EventLease;
  readonly #eventOf: ReadonlyMap<Bucket, number>;
  /** What the compute stream, and the data stream, had been given when the other was last made to wait for it. */
  readonly #marks: EventLease;
  /** Of the buckets some of whose state, or gradient, is bf16. */
  readonly #rounded: ReadonlyMap<Bucket, readonly RoundedPiece[] | undefined>;
  readonly #reduced = new Set<Bucket>();
  readonly #collected = new Set<Bucket>();

  constructor(options: OptimizerOptions) {
    this.#o = options;
    this.state = options.state;
    this.totals = options.totals;
    this.#device = options.ops.device;
    this.#dataOps = new Ops(this.#device, STREAM.data);
    const trained = options.state.buckets;
    this.#events = this.#device.lease(trained.length);
    this.#eventOf = new Map(trained.map(({ bucket }, i) => [bucket, this.#events.at(i)]));
    this.#rounded = new Map(trained.map((state) => [state.bucket, roundedPieces(state)]));
    this.#marks = this.#device.lease(2);
    this.hooks = {
      needed: (bucket) => bucket.settle(this.#device),
      opening: (bucket) => this.#open(bucket),
      done: (bucket, last) => this.#done(bucket, last),
    };
  }

  get ops(): Ops {
    return this.#o.ops;
  }

  /** Gives its events back, once what they stand for is waited for. The state is the model's, and stays. */
  dispose(): void {
    for (const { bucket } of this.state.buckets) bucket.settle(this.#device);
    this.state.ring.settle(this.#device);
    this.#events.end();
    this.#marks.end();
  }

  /** Clears moments, gradients and counters. */
  initialize(): void {
    const { ops, state } = this.#o;
    state.readers.wait(this.#device);
    for (const { bucket, m, v } of state.buckets) {
      bucket.readers.wait(this.#device);
      ops.fill(m, 0);
      ops.fill(v, 0);
    }
    state.clearGradients(ops);
    ops.fill(state.scalars, 0);
  }

  /**
   * One update from the gradients that backward left: reduce, norm, clip, AdamW, gather.
   * @param wantsStop tells the other ranks, in the same reduction, that this one was asked to stop
   */
  step(wantsStop = false): void {
    this.reduceGradients();
    this.#reduceTotals(wantsStop);
    this.#update();
    this.state.hasGradients = false;
  }

  /** Sums gradients over tp where they are partial, over the replicas, and over the copies of a tied embedding. */
  reduceGradients(): void {
    const { groups, state } = this.#o;
    for (const { bucket } of state.buckets) if (!this.#reduced.has(bucket)) this.#reduce(bucket);
    this.#reduced.clear();
    this.#collected.clear();
    this.#join(STREAM.data, STREAM.compute);
    for (const { bucket } of state.buckets) {
      // Both copies have the same layout, so their shards lie over each other.
      if (gradientSums(bucket).includes('embd')) groups.embd?.allReduce(this.#own(bucket));
    }
  }

  #open(bucket: Bucket): void {
    if (bucket.borrows && !bucket.isLent) this.state.ring.lend(bucket, this.#device);
  }

  #done(bucket: Bucket, last: boolean): void {
    if (!bucket.trainable) return;
    if (bucket.isLent) {
      this.#join(STREAM.compute, STREAM.data);
      const accumulate = this.#collected.has(bucket);
      this.state.ring.collect(bucket, this.#dataOps, accumulate, this.#event(bucket));
      this.#collected.add(bucket);
      if (last) this.#reduced.add(bucket);
    } else if (last && this.#o.overlap.gradReduce) {
      this.#reduce(bucket);
      this.#reduced.add(bucket);
    }
  }

  /** Reduces a whole gradient on the data stream, after what the compute stream has been given so far. */
  #reduce(bucket: Bucket): void {
    const { grads, group } = bucket;
    if (grads === null) throw new Error(`bucket ${bucket.name} has no gradient to reduce`);
    if (gradientSums(bucket).includes('tp')) this.#o.groups.tp.allReduce(grads);
    this.#join(STREAM.compute, STREAM.data);
    if (this.state.sharded) group.reduceScatter(grads, bucket.shard(grads), STREAM.data);
    else group.allReduce(grads, 'sum', STREAM.data);
  }

  /**
   * Sum of squares of the trained weights over all ranks of the model, some of them counted more than once: NaN where a weight is.
   * Every rank calls it, after the same step.
   */
  async squaredWeights(): Promise<number> {
    const { ops, groups, state } = this.#o;
    ops.fill(state.normSquared, 0);
    for (const { main } of state.buckets) ops.sumOfSquares(main, state.normSquared, state.workspace, true);
    groups.model.allReduce(state.normSquared);
    const bytes = await ops.device.fetch(state.normSquared);
    return new Float32Array(bytes.buffer, bytes.byteOffset, 1)[0] as number;
  }

  #reduceTotals(wantsStop: boolean): void {
    const { ops, groups, state, totals } = this.#o;
    for (const { bucket } of state.buckets) {
      if (!countedInNorm(bucket.kind, groups.tp.rank)) continue;
      ops.sumOfSquares(present(bucket.gradShard), state.normSquared, state.workspace, true);
    }
    if (wantsStop) ops.fill(state.stopVotes, 1);
    totals.reduce(ops, groups.model);
  }

  /** AdamW bucket by bucket, each gathered while the next are updated, in the order of the next forward. */
  #update(): void {
    const { ops, state, totals, hyper, overlap } = this.#o;
    state.readers.wait(this.#device);
    ops.optimizerPrepare(state.normSquared, totals.lossAndTokens, state.scalars, hyper);
    const late = ({ bucket }: BucketState): number => Number(!bucket.kind.throughout);
    const order = [...state.buckets].sort((a, b) => late(a) - late(b));
    for (const each of order) {
      const { bucket } = each;
      bucket.readers.wait(this.#device);
      const out = state.sharded ? bucket.shard(bucket.params) : bucket.params;
      this.#updateBucket(each, out);
      if (state.sharded && bucket.replicas.size > 1) this.#gather(bucket, out);
    }
    for (const { bucket } of state.buckets) {
      if (bucket.kind.throughout || !overlap.paramGather) bucket.settle(this.#device);
    }
  }

  #updateBucket({ bucket, main, m, v }: BucketState, out: Tensor): void {
    const { ops, state, hyper, weightDecay, seed } = this.#o;
    const decay = bucket.kind.weightDecay ? weightDecay : 0;
    const t = { p: main, m, v, g: this.#own(bucket), out, state: state.scalars };
    const pieces = this.#rounded.get(bucket);
    if (pieces === undefined) {
      ops.adamw(t, hyper, decay);
      return;
    }
    const isMain = main.dtype === out.dtype;
    for (const { at, place, key } of pieces) {
      const part = (x: Tensor): Tensor => x.slice(at, place.rows * place.cols);
      const parts = { p: part(main), m: part(m), v: part(v), g: part(t.g), out: isMain ? null : part(out) };
      adamwRounded(this.#device, { ...parts, state: t.state }, place, hyper, decay, { seed: BigInt(seed), key });
    }
  }

  /** Gathers a bucket on the data stream; who reads its parameters waits for that. */
  #gather(bucket: Bucket, own: Tensor): void {
    const event = this.#event(bucket);
    this.#join(STREAM.compute, STREAM.data);
    bucket.group.allGather(own, bucket.params, STREAM.data);
    this.#device.record(event, STREAM.data);
    bucket.gathering(event);
  }

  /** `later` continues after everything `earlier` has been given so far. */
  #join(earlier: Joined, later: Joined): void {
    const mark = this.#marks.at(earlier === STREAM.compute ? 0 : 1);
    this.#device.record(mark, earlier);
    this.#device.wait(later, mark);
  }

  #event(bucket: Bucket): number {
    return this.#eventOf.get(bucket) as number;
  }

  /** The reduced gradient that this rank updates from. */
  #own(bucket: Bucket): Tensor {
    return present(this.state.sharded ? bucket.gradShard : bucket.grads);
  }
}

/** A rectangle of a parameter in a bucket's state, which random bits of its own place round. */
interface RoundedPiece {
  /** Its first element in the state. */
  readonly at: number;
  readonly place: MatrixPlace;
  readonly key: bigint;
}

/** What is updated by parameter, so that layouts round alike; undefined where nothing is rounded. */
function roundedPieces({ bucket, main, m, v, start }: BucketState): RoundedPiece[] | undefined {
  if ([main, m, v, bucket.gradShard].every((tensor) => tensor?.dtype === 'f32')) return undefined;
  return bucketPieces(bucket, start, main.size).map(({ spec, rows, cols, offset }) => ({
    at: offset - start,
    place: {
      ...{ rows: rows.count, cols: cols.count, row0: rows.start, col0: cols.start },
      gcols: spec.globalShape.at(-1) as number,
    },
    key: nameKey(spec.name),
  }));
}

type Joined = typeof STREAM.compute | typeof STREAM.data;

function present(gradient: Tensor | null): Tensor {
  if (gradient === null) throw new Error('a frozen bucket has no gradient');
  return gradient;
}
