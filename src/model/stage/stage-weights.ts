import type { ModelShape } from '../../families/model-shape.js';
import type { Bucket, BucketKind } from '../parameters/bucket.js';
import type { ParameterBuffer } from '../parameters/parameter-buffer.js';
import type { AttentionWeights } from '../blocks/attention.js';
import type { MlpWeights } from '../blocks/mlp.js';
import { matrix, vector, type ParameterSpec, type Place, type Weight } from '../parameters/parameter.js';

/** Which part of the model a rank holds. */
export interface StageParts {
  /** Global indices of the decoder layers here, ascending within each chunk. */
  readonly layers: readonly number[];
  readonly embedding: boolean;
  readonly head: boolean;
}

export interface LayerWeights {
  readonly attention: AttentionWeights;
  readonly mlp: MlpWeights;
  readonly bucket: Bucket;
}

export interface StageWeights {
  readonly embedding: { weight: Weight; bucket: Bucket } | null;
  readonly layers: ReadonlyMap<number, LayerWeights>;
  readonly head: { norm: Weight; output: Weight; bucket: Bucket } | null;
}

const EMBEDDING = 'model.embed_tokens.weight';

/**
 * Lays out a stage's parameters: one bucket for each layer's matrices, for the embedding and for an untied output
 * layer; all norms together, and all q/k-norms together, because what is done to their gradients differs.
 */
export function layOutStage(
  buffer: ParameterBuffer,
  shape: ModelShape,
  tp: Place,
  sequenceParallel: boolean,
  parts: StageParts,
  layerGradients: 'whole' | 'shard',
): StageWeights {
  const { vocabSize, hiddenSize, numHeads, numKvHeads, headDim, intermediateSize } = shape;
  const sharded: BucketKind = { weightDecay: true, tpReplicated: false, tpPartialGradient: false, tied: 'none' };
  const vocabulary = (name: string): ParameterSpec => matrix(name, [vocabSize, hiddenSize], 0, tp);
  const bucketNamed = (name: string): Bucket => buffer.buckets.find((b) => b.name === name) as Bucket;
  const single = (name: string, kind: BucketKind, spec: ParameterSpec): { weight: Weight; bucket: Bucket } => {
    const [weight] = buffer.add(name, kind, [[spec]]) as [Weight];
    return { weight, bucket: bucketNamed(name) };
  };

  const split = parts.embedding !== parts.head && shape.tieWordEmbeddings;
  const tied = (role: 'owner' | 'copy'): BucketKind => (split ? { ...sharded, tied: role } : sharded);
  const embedding = parts.embedding ? single('embedding', tied('owner'), vocabulary(EMBEDDING)) : null;

  const matrices = new Map<number, [Weight, Weight, Weight, Weight]>();
  for (const layer of parts.layers) {
    const at = (name: string): string => `model.layers.${layer}.${name}.weight`;
    const column = (name: string, rows: number): ParameterSpec => matrix(at(name), [rows, hiddenSize], 0, tp);
    const row = (name: string, cols: number): ParameterSpec => matrix(at(name), [hiddenSize, cols], 1, tp);
    const groups = [
      [
        column('self_attn.q_proj', numHeads * headDim),
        column('self_attn.k_proj', numKvHeads * headDim),
        column('self_attn.v_proj', numKvHeads * headDim),
      ],
      [row('self_attn.o_proj', numHeads * headDim)],
      [column('mlp.gate_proj', intermediateSize), column('mlp.up_proj', intermediateSize)],
      [row('mlp.down_proj', intermediateSize)],
    ];
    const weights = buffer.add(`layer.${layer}`, sharded, groups, layerGradients);
    matrices.set(layer, weights as [Weight, Weight, Weight, Weight]);
  }

  let output: { weight: Weight; bucket: Bucket } | null = null;
  if (parts.head) {
    if (!shape.tieWordEmbeddings) output = single('output', sharded, vocabulary('lm_head.weight'));
    else output = embedding ?? single('embedding', tied('copy'), vocabulary(EMBEDDING));
  }

  const normKind: BucketKind = { weightDecay: false, tpReplicated: true, tpPartialGradient: false, tied: 'none' };
  const norm = (name: string, length: number): ParameterSpec[] => [vector(`${name}.weight`, length)];
  const norms = buffer.add('norms', { ...normKind, tpPartialGradient: sequenceParallel }, [
    ...parts.layers.flatMap((layer) => [
      norm(`model.layers.${layer}.input_layernorm`, hiddenSize),
      norm(`model.layers.${layer}.post_attention_layernorm`, hiddenSize),
    ]),
    ...(parts.head ? [norm('model.norm', hiddenSize)] : []),
  ]);
  // Each tp rank sees only its heads, with or without sequence parallelism.
  const headNorms = buffer.add(
    'head-norms',
    { ...normKind, tpPartialGradient: tp.size > 1 },
    parts.layers.flatMap((layer) => [
      norm(`model.layers.${layer}.self_attn.q_norm`, headDim),
      norm(`model.layers.${layer}.self_attn.k_norm`, headDim),
    ]),
  );

  const layers = new Map<number, LayerWeights>();
  parts.layers.forEach((layer, i) => {
    const [qkv, out, gateUp, down] = matrices.get(layer) as [Weight, Weight, Weight, Weight];
    const [inputNorm, postNorm] = norms.slice(2 * i) as [Weight, Weight];
    const [qNorm, kNorm] = headNorms.slice(2 * i) as [Weight, Weight];
    layers.set(layer, {
      attention: { norm: inputNorm, qkv, qNorm, kNorm, out },
      mlp: { norm: postNorm, gateUp, down },
      bucket: bucketNamed(`layer.${layer}`),
    });
  });
  const head = output && { norm: norms.at(-1) as Weight, output: output.weight, bucket: output.bucket };
  return { embedding, layers, head };
}
