import type { HeadKind } from '../../families/decoder.js';
import type { ModelShape } from '../../families/model-shape.js';
import { scaledRope } from '../../families/rope.js';
import { layerLinears, localOutputs } from '../../families/parameters.js';
import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { ActDType, DType } from '../../engine/dtype.js';
import { elementCount } from '../../base/element-count.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import { REDUCE_PARTS, type Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import { partOf } from '../parameters/parameter.js';
import type { ContextParallel } from '../parallel/context-parallel.js';
import type { TensorParallel } from '../parallel/tensor-parallel.js';
import type { Fp8 } from './fp8-product.js';

export type Recompute = 'none' | 'selective' | 'full';

/**
 * What `selective` recompute drops: outputs of norms, of the rotary embedding (with the norms of heads) and of SwiGLU; what
 * attention leaves between the projections; the MLP's gate and up products, and its SwiGLU with them.
 */
export type RecomputeModule = 'norm' | 'rope' | 'swiglu' | 'attention' | 'mlp';
/** What costs no product. */
const CHEAP: readonly RecomputeModule[] = ['norm', 'rope', 'swiglu'];

/** Sizes of one micro-batch on one rank. */
export interface StageSizes {
  readonly batch: number;
  /** Of a whole sequence. */
  readonly seq: number;
  /** Of this rank's parts of the sequences: batch * seq / cp. */
  readonly tokens: number;
  /** Tokens of the residual stream here: tokens / tp under sequence parallelism. */
  readonly localTokens: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Columns of the attention output here: heads * headDim. */
  readonly qWidth: number;
  /** Columns of the keys, or of the values, here: kvHeads * headDim. */
  readonly kvWidth: number;
  /** Columns of the fused projection here: (heads + 2 kvHeads) * headDim. */
  readonly qkvWidth: number;
  readonly ffn: number;
  /** Tokens of the vocabulary whose logits are computed here, from `vocabStart`; no more than `vocabRoom`. */
  readonly vocab: number;
  readonly vocabStart: number;
  /** The most that a tp rank has: memory is the same on all, since they may share it. */
  readonly vocabRoom: number;
}

export interface StageEnvOptions {
  plan: MemoryPlan;
  /** Null while only planning. */
  ops: Ops | null;
  shape: ModelShape;
  head: HeadKind;
  tp: TensorParallel;
  cp: ContextParallel;
  batch: number;
  seq: number;
  dtype: ActDType;
  recompute: Recompute;
  /** Under `selective`; what costs no product by default. */
  recomputeModules?: readonly RecomputeModule[];
  attention: readonly AttentionSizes[];
  attentionWorkspaceBytes: number;
  /** Positions that tokens may have; `seq` by default. */
  positions?: number;
  /** Which products are in e4m3; none by default. */
  fp8?: Fp8 | null;
  /** Whether there is a backward; there is one by default. */
  trains?: boolean;
}

/** One tensor for each micro-batch in flight. */
export type PerMicroBatch = (microBatch: number) => Tensor;

/** What the modules of a stage share: sizes, ops, groups, and memory asked for while they are built. */
export class StageEnv {
  readonly shape: ModelShape;
  readonly head: HeadKind;
  readonly tp: TensorParallel;
  readonly cp: ContextParallel;
  readonly sizes: StageSizes;
  readonly dtype: ActDType;
  readonly recompute: Recompute;
  readonly trains: boolean;
  /** Of each call of the attention: one, or under context parallelism one a chunk that the rank holds. */
  readonly attention: readonly AttentionSizes[];
  readonly plan: MemoryPlan;
  /** cos and sin of every position, f32 [positions, headDim]. */
  readonly ropeTable: Tensor;
  readonly #frequencies: Tensor | null;
  readonly attentionWorkspace: Tensor;
  readonly #reduce: Tensor;
  readonly #maybeOps: Ops | null;
  readonly #shared = new Map<string, Tensor>();
  readonly #recomputed: ReadonlySet<RecomputeModule>;
  readonly #fp8: Fp8 | null;
  #pass = 0;

  constructor(options: StageEnvOptions) {
    const { plan, shape, tp, cp, batch, seq } = options;
    this.plan = plan;
    this.shape = shape;
    this.head = options.head;
    this.tp = tp;
    this.cp = cp;
    this.#maybeOps = options.ops;
    this.dtype = options.dtype;
    this.recompute = options.recompute;
    this.trains = options.trains ?? true;
    const modules = options.recompute === 'selective' ? (options.recomputeModules ?? CHEAP) : [];
    this.#fp8 = options.fp8 ?? null;
    this.#recomputed = new Set(modules.includes('mlp') ? [...modules, 'swiglu'] : modules);
    this.attention = options.attention;
    const heads = shape.numHeads / tp.size;
    const kvHeads = shape.numKvHeads / tp.size;
    const tokens = (batch * seq) / cp.size;
    const { start: vocabStart, count: vocab } = partOf(shape.vocabSize, tp);
    this.sizes = {
      batch,
      seq,
      tokens,
      localTokens: tp.localTokens(tokens),
      heads,
      kvHeads,
      qWidth: heads * shape.headDim,
      kvWidth: kvHeads * shape.headDim,
      qkvWidth: (heads + 2 * kvHeads) * shape.headDim,
      ffn: shape.intermediateSize / tp.size,
      vocab,
      vocabStart,
      vocabRoom: Math.ceil(shape.vocabSize / tp.size),
    };
    // Gradients of norms and of biases are summed over tokens through it.
    const biases = layerLinears(shape).filter(({ bias }) => bias);
    const columns = [
      shape.hiddenSize,
      2 * shape.headDim,
      ...biases.map((linear) => localOutputs(shape, linear, tp.size)),
    ];
    this.#reduce = plan.tensor('workspace', [REDUCE_PARTS * Math.max(...columns)], 'f32');
    this.ropeTable = plan.tensor('workspace', [options.positions ?? seq, shape.headDim], 'f32');
    this.#frequencies = shape.ropeScaling === null ? null : plan.tensor('workspace', [shape.headDim / 2], 'f64');
    this.attentionWorkspace = plan.tensor(
      'workspace',
      [Math.ceil(Math.max(4, options.attentionWorkspaceBytes) / 4)],
      'f32',
    );
  }

  get ops(): Ops {
    if (this.#maybeOps === null) throw new Error('the stage was only planned, it has no device');
    return this.#maybeOps;
  }

  /** How the products of decoder layer `layer` of the whole model are in e4m3; null for not. */
  fp8Of(layer: number): Fp8 | null {
    const ends = this.#fp8?.bf16Ends ?? 0;
    return layer >= ends && layer < this.shape.numLayers - ends ? this.#fp8 : null;
  }

  /** Which pass over the weights this is: in each they may be others, whoever changed them. */
  get pass(): number {
    return this.#pass;
  }

  /** To be called before the first forward of an update, of an evaluation, and of whatever else reads the weights. */
  beginPass(): void {
    this.#pass++;
  }

  /** A temporary that all users of `key` share; they must agree on its size and be done with it in turn. */
  scratch(key: string, shape: readonly number[], dtype: DType = this.dtype): Tensor {
    const known = this.#shared.get(key);
    if (known !== undefined) {
      if (known.size !== elementCount(shape) || known.dtype !== dtype) {
        throw new Error(`scratch ${key}: [${shape}] ${dtype} asked for, it is [${known.shape}] ${known.dtype}`);
      }
      return known.view(...shape);
    }
    const tensor = this.plan.tensor('workspace', shape, dtype);
    this.#shared.set(key, tensor);
    return tensor;
  }

  /** Workspace of the row reductions, f32 [parts, columns], shared by all of them. */
  reduceWorkspace(columns: number): Tensor {
    return this.#reduce.slice(0, REDUCE_PARTS * columns);
  }

  /** Whether a module's backward is to make again what its forward has not kept; under `full`, the layer's has done so. */
  recomputes(module: RecomputeModule): boolean {
    return this.#recomputed.has(module);
  }

  /** Whether what such a module leaves is not kept. */
  drops(module: RecomputeModule): boolean {
    return this.recompute === 'full' || this.recomputes(module);
  }

  /**
   * What a forward leaves for its backward: one tensor for each of `slots` micro-batches in flight. `droppedBy` says
   * whose recompute drops it, or that only `full` does; then it is scratch that backward fills again.
   */
  saved(
    key: string,
    shape: readonly number[],
    slots: number,
    droppedBy: 'never' | 'full' | RecomputeModule,
    dtype: DType = this.dtype,
  ): PerMicroBatch {
    const byModule = droppedBy !== 'never' && droppedBy !== 'full' && this.recomputes(droppedBy);
    if (byModule || (droppedBy !== 'never' && this.recompute === 'full')) {
      const tensor = this.scratch(key, shape, dtype);
      return () => tensor;
    }
    const tensors = Array.from({ length: slots }, () => this.plan.tensor('activations', shape, dtype));
    return (microBatch) => tensors[microBatch % tensors.length] as Tensor;
  }

  /** Fills what is constant over the run. To be called once, after the memory is there. */
  prepare(): void {
    const rope = scaledRope(this.shape, this.ropeTable.shape[0] ?? 0);
    if (rope !== null && this.#frequencies !== null) this.ops.device.write(this.#frequencies, rope.frequencies);
    this.ops.ropeTable(this.ropeTable, this.shape.ropeTheta, this.#frequencies, rope?.factor);
  }
}
