import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { ActDType } from '../../engine/dtype.js';
import { STREAM } from '../../engine/device.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { ModelShape } from '../../families/model-shape.js';
import type { AttentionWeights } from '../blocks/attention.js';
import { Embedding } from '../blocks/embedding.js';
import { Linear } from '../blocks/linear.js';
import { Mlp, type MlpWeights } from '../blocks/mlp.js';
import { ResidualNorm, type ResidualStream } from '../blocks/residual-norm.js';
import { StageEnv } from '../blocks/stage-env.js';
import { ContextParallel } from '../parallel/context-parallel.js';
import { TensorParallel } from '../parallel/tensor-parallel.js';
import type { Place, Weight } from '../parameters/parameter.js';
import { CachedAttention } from './cached-attention.js';
import type { KvCache } from './kv-cache.js';
import { TokenSampler, type Sampling } from './token-sampler.js';

export interface DecoderWeights {
  readonly embedding: { readonly weight: Weight } | null;
  readonly layers: ReadonlyMap<number, { readonly attention: AttentionWeights; readonly mlp: MlpWeights }>;
  readonly head: { readonly norm: Weight; readonly output: Weight } | null;
}

/** A rank's part of a model, as decoding sees it. */
export interface DecoderPart {
  readonly plan: MemoryPlan;
  /** Null while only planning. */
  readonly ops: Ops | null;
  readonly shape: ModelShape;
  readonly dtype: ActDType;
  readonly weights: DecoderWeights;
  /** Its decoder layers [firstLayer, firstLayer + layers), by chunk. */
  readonly chunks: readonly { readonly firstLayer: number; readonly layers: number }[];
  readonly tp: { readonly place: Place; readonly group: CommGroup | null; readonly sequenceParallel: boolean };
  readonly pp: Place;
}

interface LayersOf {
  readonly layers: readonly { readonly attention: CachedAttention; readonly mlp: Mlp }[];
  readonly first: boolean;
  readonly last: boolean;
}

interface Head {
  readonly norm: ResidualNorm;
  readonly output: Linear;
  /** [rows, vocabulary shard], at the beginning of `room`. */
  readonly logits: Tensor;
  readonly room: Tensor;
}

function headOf(env: StageEnv, { norm, output }: { readonly norm: Weight; readonly output: Weight }): Head {
  const { tokens: rows, vocab, vocabRoom } = env.sizes;
  const room = env.scratch('logits', [rows, vocabRoom]);
  return {
    norm: new ResidualNorm(env, 'head.norm', norm, 1, null),
    output: new Linear(env, { weight: output, bias: null, adapter: null }),
    logits: room.slice(0, rows * vocab, [rows, vocab]),
    room,
  };
}

/** Inputs of a step for each row, i32 [4, rows]: token, slot (-1: none), position, number of the row. */
const FIELDS = { ids: 0, cells: 1, positions: 2, rows: 3, count: 4 } as const;

/**
 * The forward pass of a number of tokens, each on its own: they have a slot of the cache and a position in it. The
 * modules and their order are those of training, so that a token gets the same bits wherever an op's rows do not depend
 * on each other.
 */
export class TokenRows {
  readonly rows: number;
  readonly sampler: TokenSampler | null;
  /** i32 [rows]: the tokens; what is sampled may be put there. */
  readonly ids: Tensor;
  readonly #env: StageEnv;
  readonly #pp: Place;
  readonly #inputs: Tensor;
  readonly #embedding: Embedding | null;
  readonly #chunks: readonly LayersOf[];
  readonly #head: Head | null;
  readonly #sent: Tensor | null;
  readonly #narrow: Tensor;

  /**
   * @param rows a multiple of tp: under sequence parallelism each rank norms as many of them, as in training
   * @param samples whether tokens are sampled, or the cache is filled alone
   */
  constructor(part: DecoderPart, cache: KvCache, rows: number, samples: boolean) {
    const { plan, shape, dtype, weights, tp: tpPart, pp } = part;
    const tp = new TensorParallel(tpPart.place, tpPart.group, tpPart.sequenceParallel);
    const env = new StageEnv({
      ...{ plan, ops: part.ops, shape, tp, cp: new ContextParallel({ size: 1, rank: 0 }, null), dtype },
      ...{ batch: rows, seq: 1, positions: cache.context, recompute: 'full' },
      ...{ attention: [], attentionWorkspaceBytes: 0, head: 'language' },
    });
    const { hiddenSize } = shape;
    this.rows = rows;
    this.#env = env;
    this.#pp = pp;
    this.#inputs = plan.tensor('staging', [FIELDS.count, rows], 'i32');
    const field = (index: number): Tensor => this.#inputs.rows(index, 1).view(rows);
    this.ids = field(FIELDS.ids);
    const places = { cells: field(FIELDS.cells), positions: field(FIELDS.positions) };
    this.#embedding =
      weights.embedding &&
      new Embedding(
        env,
        weights.embedding.weight,
        () => this.ids,
        () => this.ids,
      );
    let at = 0;
    this.#chunks = part.chunks.map(({ firstLayer, layers }, index) => ({
      first: index === 0 && pp.rank === 0,
      last: index === part.chunks.length - 1 && pp.rank === pp.size - 1,
      layers: Array.from({ length: layers }, (_, i) => {
        const layer = weights.layers.get(firstLayer + i);
        if (layer === undefined) throw new Error(`no weights for layer ${firstLayer + i}`);
        const attention = new CachedAttention(env, layer.attention, cache.layer(at++), places, !samples);
        return { attention, mlp: new Mlp(env, layer.mlp, 1) };
      }),
    }));
    const between = [env.sizes.localTokens, hiddenSize];
    this.#narrow = env.scratch('narrow', between);
    this.#sent = pp.size > 1 ? plan.tensor('communication', between, dtype) : null;
    this.#head = samples && weights.head !== null ? headOf(env, weights.head) : null;
    this.sampler = samples ? new TokenSampler(env, tpPart.group) : null;
  }

  /** To be called once the memory is there. */
  prepare(): void {
    this.#env.prepare();
    this.#env.ops.fill(this.#inputs, 0);
    this.sampler?.prepare();
  }

  dispose(): void {
    this.#env.tp.dispose();
  }

  /** Sends what a step needs; `ids` null leaves those that are there. `cells` -1: no token. */
  write(inputs: { ids: Int32Array | null; cells: Int32Array; positions: Int32Array; rows: Int32Array }): void {
    const { device } = this.#env.ops;
    const rest = Int32Array.from([...inputs.cells, ...inputs.positions, ...inputs.rows]);
    if (inputs.ids !== null) device.write(this.ids, inputs.ids);
    device.write(this.#inputs.rows(FIELDS.cells, FIELDS.count - 1), rest);
  }

  /**
   * Runs the rows through this rank's part of the model. On the last stage, with `sampling`, the sampler then has the
   * tokens. Every rank of the model calls it.
   * @param pipeline the stages
   */
  forward(pipeline: CommGroup, sampling: Sampling | null): void {
    const { ops } = this.#env;
    const { rank, size } = this.#pp;
    for (const { layers, first, last } of this.#chunks) {
      const input = (layers[0] as LayersOf['layers'][number]).attention.norm.x(0);
      if (first) this.#embedding?.forward(0, input);
      else pipeline.exchange([{ kind: 'receive', peer: (rank + size - 1) % size, tensor: input }], STREAM.compute);
      let stream: ResidualStream = { residual: input, partial: null };
      for (const { attention, mlp } of layers) stream = mlp.forward(0, attention.forward(stream));
      if (!last) {
        const sent = this.#sent as Tensor;
        ops.add(stream.residual, this.#env.tp.reduce(stream.partial as Tensor, this.#narrow), sent);
        pipeline.exchange([{ kind: 'send', peer: (rank + 1) % size, tensor: sent }], STREAM.compute);
      } else if (sampling !== null) this.#sample(stream, sampling);
    }
  }

  #sample(stream: ResidualStream, sampling: Sampling): void {
    const head = this.#head;
    if (head === null || this.sampler === null) throw new Error('these rows were planned without sampling');
    head.output.forward(head.norm.forward(0, stream), head.logits);
    const [rows, positions] = [FIELDS.rows, FIELDS.positions].map((at) => this.#inputs.rows(at, 1).view(this.rows));
    this.sampler.sample(head.logits, head.room, rows as Tensor, positions as Tensor, sampling);
  }
}
