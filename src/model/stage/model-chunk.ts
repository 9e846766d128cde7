import type { Tensor } from '../../engine/tensor.js';
import { NO_HOOKS, type BucketHooks } from '../parameters/bucket-hooks.js';
import type { Bucket } from '../parameters/bucket.js';
import type { Chunk, ForwardOptions } from '../pipeline/chunk.js';
import type { BufferNeeds } from '../pipeline/schedule-buffers.js';
import { DecoderLayer } from '../blocks/decoder-layer.js';
import { Embedding } from '../blocks/embedding.js';
import type { LossFunction } from '../blocks/loss.js';
import { LossHead } from '../blocks/loss-head.js';
import type { ResidualStream } from '../blocks/residual-norm.js';
import type { PerMicroBatch, StageEnv } from '../blocks/stage-env.js';
import type { StageWeights } from './stage-weights.js';
import type { StepData } from './step-data.js';

/**
 * A contiguous part of the model: layers [firstLayer, firstLayer + count), with the embedding if it is the first part
 * and the loss head if it is the last.
 */
export class ModelChunk implements Chunk {
  readonly head: LossHead | null;
  readonly #env: StageEnv;
  readonly #embedding: { module: Embedding; bucket: Bucket } | null;
  readonly #layers: readonly { module: DecoderLayer; bucket: Bucket }[];
  readonly #headBucket: Bucket | null;
  readonly #outputs: PerMicroBatch;
  readonly #gradients: PerMicroBatch;
  readonly #narrow: Tensor;
  readonly #dyFull: Tensor;

  constructor(
    env: StageEnv,
    weights: StageWeights,
    parts: { firstLayer: number; count: number; embedding: boolean; loss: LossFunction | null; logitsTokens: number },
    data: StepData,
    needs: BufferNeeds,
  ) {
    const slots = Math.max(1, needs.inFlight);
    const inputSlots = Math.max(1, needs.inputs, needs.waitingInputs);
    const inputs = { positions: data.field('positions'), bounds: data.bounds };
    this.#env = env;
    this.#embedding =
      parts.embedding && weights.embedding
        ? {
            module: new Embedding(env, weights.embedding.weight, data.field('tokens'), data.field('order')),
            bucket: weights.embedding.bucket,
          }
        : null;
    this.#layers = Array.from({ length: parts.count }, (_, i) => {
      const index = parts.firstLayer + i;
      const layer = weights.layers.get(index);
      if (layer === undefined) throw new Error(`no weights for layer ${index}`);
      const held = i === 0 ? inputSlots : slots;
      const module = new DecoderLayer(env, layer, slots, held, inputs, env.fp8Of(index));
      return { module, bucket: layer.bucket };
    });
    const head = parts.loss && weights.head;
    this.head =
      parts.loss &&
      head &&
      new LossHead(
        env,
        head,
        slots,
        parts.loss,
        { field: (name) => data.field(name), batch: (microBatch) => data.batch(microBatch) },
        parts.logitsTokens,
      );
    this.#headBucket = head?.bucket ?? null;
    this.#narrow = env.scratch('narrow', [env.sizes.localTokens, env.shape.hiddenSize]);
    this.#dyFull = env.scratch('dyFull', [env.sizes.tokens, env.shape.hiddenSize]);
    // One more than can be in use: a buffer may still be on its way out when the next is filled.
    this.#outputs = this.#buffers('communication', head === null ? 2 : 0);
    this.#gradients = this.#buffers('communication', Math.max(1, needs.waitingGradients) + 1);
  }

  /** Where the previous stage's output is received. */
  input(microBatch: number): Tensor {
    return (this.#layers[0] as { module: DecoderLayer }).module.input(microBatch);
  }

  /** What the next stage is sent. */
  output(microBatch: number): Tensor {
    return this.#outputs(microBatch);
  }

  /** Where the gradient of the output is received, and from where that of the input is sent. */
  gradient(microBatch: number): Tensor {
    return this.#gradients(microBatch);
  }

  forward(microBatch: number, { hooks = NO_HOOKS, ...options }: ForwardOptions): void {
    const input = this.input(microBatch);
    if (this.#embedding !== null) {
      hooks.needed(this.#embedding.bucket);
      this.#embedding.module.forward(microBatch, input);
    }
    let stream: ResidualStream = { residual: input, partial: null };
    for (const { module, bucket } of this.#layers) {
      hooks.needed(bucket);
      stream = module.forward(microBatch, stream);
    }
    if (this.head !== null && this.#headBucket !== null) {
      hooks.needed(this.#headBucket);
      this.head.forward(microBatch, stream, options);
    } else if (stream.partial !== null) {
      this.#env.ops.add(stream.residual, this.#env.tp.reduce(stream.partial, this.#narrow), this.output(microBatch));
    }
  }

  /** @param last whether this is the step's last backward of this chunk */
  backward(microBatch: number, last: boolean, hooks: BucketHooks = NO_HOOKS): void {
    const dStream = this.gradient(microBatch);
    if (this.head !== null) {
      this.head.backward(microBatch, dStream);
      if (this.#headBucket !== null && this.#headBucket !== this.#embedding?.bucket) hooks.done(this.#headBucket, last);
    }
    let dy = this.#env.tp.gather(dStream, this.#dyFull);
    for (const [i, { module, bucket }] of [...this.#layers.entries()].reverse()) {
      hooks.opening(bucket);
      dy = module.backward(microBatch, dStream, dy, i > 0 || this.#embedding !== null);
      hooks.done(bucket, last);
    }
    if (this.#embedding !== null) {
      this.#embedding.module.backward(microBatch, dy);
      hooks.done(this.#embedding.bucket, last);
    }
  }

  #buffers(region: 'communication', count: number): PerMicroBatch {
    const shape = [this.#env.sizes.localTokens, this.#env.shape.hiddenSize];
    const tensors = Array.from({ length: count }, () => this.#env.plan.tensor(region, shape, this.#env.dtype));
    return (microBatch) => {
      const tensor = tensors[microBatch % tensors.length];
      if (tensor === undefined) throw new Error('this part of the model has no such buffer');
      return tensor;
    };
  }
}
