import { MbridgeError } from '../../base/errors.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { MicroBatch } from '../../data/micro-batch.js';
import type { Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { Schedule } from '../pipeline/actions.js';
import { PipelineExecutor } from '../pipeline/executor.js';
import { buildSchedule } from '../pipeline/schedule.js';
import type { HeadOptions, LogitsObserver } from '../blocks/loss-head.js';
import { HiddenReader } from '../losses/hidden-reader.js';
import type { TokenScores } from '../losses/token-reader.js';
import { checkTop, TopReader, type TopLogprobs, type TopOptions } from '../losses/top-reader.js';
import type { BucketHooks } from '../parameters/bucket-hooks.js';
import type { Range } from '../parameters/parameter.js';
import { prepareMemory, type Stage } from './stage.js';

/** A slice of a named parameter, or of its gradient, as this rank holds it. */
export interface ParameterSlice {
  readonly name: string;
  readonly globalShape: readonly number[];
  readonly rows: Range;
  readonly cols: Range;
  /** False on all but one of the ranks that hold the same slice (tp replicas, the copy of a tied embedding). */
  readonly owner: boolean;
  /** f32 [rows, cols] */
  readonly values: Float32Array;
}

/** One rank's part of a model spread over a grid of ranks. Every rank of the grid calls its methods in the same order. */
export class DistributedModel {
  readonly stage: Stage;
  readonly device: Device;
  /** The pipeline's stages. */
  readonly pipeline: CommGroup;
  readonly #executor: PipelineExecutor;
  readonly #tpRank: number;
  readonly #shared: readonly CommGroup[];
  readonly #closers: (() => void)[] = [];

  /** @param groups.shared those whose members reach each other's memory: see `prepareMemory` */
  constructor(stage: Stage, groups: { pp: CommGroup; tp: CommGroup; shared: readonly CommGroup[] }) {
    this.stage = stage;
    this.device = groups.pp.device;
    this.pipeline = groups.pp;
    this.#tpRank = groups.tp.rank;
    this.#shared = groups.shared;
    this.#executor = new PipelineExecutor(this.device, groups.pp, stage.chunks);
  }

  /**
   * Loss sum and token count since the step began, f32 [2], of this replica's tokens, or this rank's of them
   * where ranks share sequences, until the step's totals are reduced; null on ranks without the loss head.
   */
  get lossAndTokens(): Tensor | null {
    return this.#hasHead ? this.stage.totals.lossAndTokens : null;
  }

  /**
   * Forward and backward of a step's micro-batches. Gradients are sums over this replica's counted tokens, not yet
   * reduced over any group.
   * @param batches as many as were planned
   * @param options.hooks the optimizer's, where there is one
   */
  forwardBackward(
    batches: readonly MicroBatch[],
    options: { hooks?: BucketHooks; observe?: LogitsObserver } = {},
  ): void {
    const { totals, pairs, env, buffer, schedule, data, optimizer } = this.stage;
    if (batches.length !== data.microBatches) {
      throw new RangeError(`${batches.length} micro-batches where ${data.microBatches} were planned`);
    }
    // The optimizer's hooks wait for each bucket of parameters where it is needed first.
    if (options.hooks === undefined) this.settleParameters();
    data.upload(this.device, batches);
    if (optimizer !== null && options.hooks !== undefined) optimizer.hasGradients = true;
    env.beginPass();
    totals.begin(env.ops);
    if (pairs !== null) env.ops.fill(pairs, data.pairs ?? 0);
    buffer.reset();
    this.#executor.run(schedule, options);
  }

  /**
   * Forward only: fills {@link lossAndTokens}.
   * @param batches any number, the same on every rank; under interleaved stages a multiple of the pipeline size
   */
  evaluate(batches: readonly MicroBatch[], observe?: LogitsObserver): void {
    const { totals, env } = this.stage;
    this.settleParameters();
    totals.begin(env.ops);
    this.#forward(batches, { observe });
  }

  /**
   * What the model says of each token, forward only: log-probabilities of the targets and entropies, or values. No buffer
   * is larger than a micro-batch's logits, cut over tp; the bits do not depend on pp, dp, cp, or what else is in the batch.
   * @param batches any number, the same on every rank; under interleaved stages a multiple of the pipeline size
   * @returns for each batch, on every rank of the last stage; null on the others (see RowTable)
   */
  score(batches: readonly MicroBatch[]): readonly TokenScores[] | null {
    return this.#collect(batches, 'score', this.stage.reader);
  }

  /** Log-probability of every target, f32 [b*s] a batch: see {@link score}. */
  logprobs(batches: readonly MicroBatch[]): readonly Float32Array[] | null {
    return this.score(batches)?.map(({ logprob }) => logprob) ?? null;
  }

  /**
   * Of each token the k tokens that the model holds most probable to follow it, and their log-probabilities, forward only:
   * ids and order are those of a sort of the whole vocabulary's logits, of equal ones the lowest id first. 8 * k bytes a
   * token are what ranks give each other; no buffer is larger than a micro-batch's logits, cut over tp.
   * @param batches as in {@link score}
   * @returns for each batch, on every rank of the last stage; null on the others
   * @throws MbridgeError MB_DISTILLATION, exit 3, for a value model, and a k or temperature that cannot be
   */
  topLogprobs(batches: readonly MicroBatch[], options: TopOptions): readonly TopLogprobs[] | null {
    const { env } = this.stage;
    checkTop('topLogprobs', env, options);
    const reader = this.#hasHead ? new TopReader(env, options) : null;
    try {
      return this.#collect(batches, 'score', reader);
    } finally {
      reader?.dispose();
    }
  }

  /**
   * What the output projection multiplies, of each token, f32 [b*s*hidden] a batch, forward only: a teacher's, of which
   * FullDistillationLoss makes its logits again.
   * @param batches as in {@link score}
   * @returns for each batch, on every rank of the last stage; null on the others
   */
  hiddenStates(batches: readonly MicroBatch[]): readonly Float32Array[] | null {
    const reader = this.#hasHead ? new HiddenReader(this.stage.env) : null;
    try {
      return this.#collect(batches, 'hidden', reader);
    } finally {
      reader?.dispose();
    }
  }

  /**
   * Whether this rank speaks for its replica's rows: one of those that have what {@link score} gives, so that rows
   * gathered from all who speak are there once.
   */
  get speaks(): boolean {
    const { env } = this.stage;
    return this.#hasHead && env.tp.rank === 0 && env.cp.rank === 0;
  }

  /** Makes the compute stream wait for parameters that an update is still gathering. */
  settleParameters(): void {
    this.stage.buffer.settle(this.device);
  }

  /** Reads {@link lossAndTokens} back; null on ranks without the loss head. */
  readLoss(): { lossSum: number; tokens: number } | null {
    if (this.lossAndTokens === null) return null;
    const values = new Float32Array(2);
    this.device.read(this.lossAndTokens, values);
    return { lossSum: values[0] as number, tokens: values[1] as number };
  }

  /** Reads this rank's gradients (undivided sums) back; for tests and inspection. */
  gradients(): ParameterSlice[] {
    return this.#read((bucket) => bucket.grads);
  }

  /** Reads this rank's float32 weights back. A bf16 model's are rounded. */
  parameters(): ParameterSlice[] {
    this.settleParameters();
    return this.#read((bucket) => bucket.params);
  }

  get isParked(): boolean {
    return this.stage.plan.isParked;
  }

  /**
   * Gives the model's device memory to others: parameters and optimizer state go to pinned host memory, which is taken the
   * first time and kept until {@link dispose}; what else there is (activations, gradients, cache) is dropped. Groups stay.
   * Until {@link unpark} whatever would use the model throws MB_PARKED. Every rank of the model calls it, between updates.
   * @throws MbridgeError MB_PARKED for a parked model, MB_PARK_GRADIENTS before the update of a backward, MB_MEMORY
   *   without host memory; then the model is as it was
   */
  park(): void {
    const { plan, optimizer } = this.stage;
    plan.refuseIfParked();
    if (optimizer?.hasGradients) {
      throw new MbridgeError(
        'config',
        'MB_PARK_GRADIENTS',
        'gradients wait for an update, and parking would drop them',
        {
          hint: 'call step() of the optimizer before park()',
        },
      );
    }
    this.settleParameters();
    optimizer?.ring.settle(this.device);
    plan.park();
  }

  /**
   * Brings a parked model back: it goes on with the very bits that it had. Every rank of the model calls it.
   * @throws MbridgeError MB_NOT_PARKED, and MB_MEMORY where others have the memory: then the model is still parked
   */
  unpark(): void {
    const { plan, env, optimizer } = this.stage;
    plan.unpark();
    prepareMemory(this.stage, this.#shared);
    optimizer?.clearGradients(env.ops);
  }

  /** `close` is called when the model is disposed of, before its memory is given back: what works on it ends with it. */
  beforeDispose(close: () => void): void {
    this.#closers.push(close);
  }

  /** Gives back all that the model took from the device. Every rank of the model calls it. */
  dispose(): void {
    for (const close of this.#closers.splice(0)) close();
    this.device.synchronize();
    this.#executor.dispose();
    this.stage.decoder?.dispose();
    this.stage.env.tp.dispose();
    this.stage.env.cp.dispose();
    this.stage.plan.release();
  }

  /** What `reader` makes of each micro-batch; null where there is none, which are the ranks without the head. */
  #collect<Found>(
    batches: readonly MicroBatch[],
    what: 'score' | 'hidden',
    reader: { take(tensor: Tensor, targets: Tensor, first: number): void; found(): Found } | null,
  ): readonly Found[] | null {
    this.settleParameters();
    const found: Found[] = [];
    const targets = this.stage.data.field('targets');
    const { tokens } = this.stage.env.sizes;
    const observe: LogitsObserver = (tensor, microBatch, first) => {
      const [count = 0] = tensor.shape;
      reader?.take(tensor, targets(microBatch).slice(first, count), first);
      if (reader !== null && first + count === tokens) found.push(reader.found());
    };
    this.#forward(batches, { [what]: observe });
    return reader === null ? null : found;
  }

  #forward(batches: readonly MicroBatch[], options: Pick<HeadOptions, 'observe' | 'score' | 'hidden'>): void {
    const { data, env } = this.stage;
    env.beginPass();
    for (let at = 0; at < batches.length; at += data.microBatches) {
      const part = batches.slice(at, at + data.microBatches);
      data.upload(this.device, part);
      this.#executor.run(this.#evaluationOf(part.length), options);
    }
  }

  /** Fewer micro-batches need no more buffers than were planned for all. */
  #evaluationOf(microBatches: number): Schedule {
    const { evaluation } = this.stage;
    return microBatches === evaluation.microBatches ? evaluation : buildSchedule({ ...evaluation, microBatches });
  }

  get #hasHead(): boolean {
    return this.stage.spec.parts.head;
  }

  #read(of: (bucket: Stage['buffer']['buckets'][number]) => Tensor | null): ParameterSlice[] {
    return this.stage.buffer.buckets.flatMap((bucket) => {
      const tensor = of(bucket);
      if (tensor === null) return [];
      const owner = bucket.kind.tied !== 'copy' && (!bucket.kind.tpReplicated || this.#tpRank === 0);
      return bucket.entries.map(({ spec, offset }) => {
        const { name, globalShape, rows, cols } = spec;
        const part = tensor.slice(offset, rows.count * cols.count);
        return { name, globalShape, rows, cols, owner, values: this.#readFloats(part) };
      });
    });
  }

  #readFloats(tensor: Tensor): Float32Array {
    if (tensor.dtype === 'f32') {
      const values = new Float32Array(tensor.size);
      this.device.read(tensor, values);
      return values;
    }
    const raw = new Uint16Array(tensor.size);
    this.device.read(tensor, raw);
    // bf16 is the upper half of a float32.
    return new Float32Array(Uint32Array.from(raw, (bits) => bits << 16).buffer);
  }
}
