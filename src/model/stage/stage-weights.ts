import type { Adapters } from '../../families/adapters.js';
import { EMBEDDING, FINAL_NORM, HEAD, layerPrefix, VALUE_HEAD, type HeadKind } from '../../families/decoder.js';
import type { LinearBlock, LinearSpec, NormBlock, NormSpec } from '../../families/family.js';
import type { ModelShape } from '../../families/model-shape.js';
import { layerLinears, layerNorms, widthOf } from '../../families/parameters.js';
import type { Bucket, BucketKind } from '../parameters/bucket.js';
import type { ParameterBuffer } from '../parameters/parameter-buffer.js';
import type { AttentionWeights } from '../blocks/attention.js';
import type { LinearWeights } from '../blocks/linear.js';
import type { MlpWeights } from '../blocks/mlp.js';
import { layOutAdapters } from './adapter-weights.js';
import {
  biasVector,
  matrix,
  normWeight,
  type ParameterSpec,
  type Place,
  type Weight,
} from '../parameters/parameter.js';

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

/**
 * Lays out a stage's parameters: one bucket for each layer's matrices, for the embedding and for an untied output
 * layer; all norms of the residual stream together, all norms of heads, all biases, and adapters, because what is done to
 * their gradients differs.
 */
export function layOutStage(
  buffer: ParameterBuffer,
  shape: ModelShape,
  tp: Place,
  sequenceParallel: boolean,
  parts: StageParts,
  layerGradients: 'whole' | 'shard',
  headKind: HeadKind = 'language',
  adapters: Adapters | null = null,
): StageWeights {
  const sharded: BucketKind = {
    ...{
      weightDecay: true,
      tpReplicated: false,
      tpPartialGradient: false,
      tied: 'none',
      throughout: false,
      matrices: false,
    },
  };
  const vocabulary = (name: string): ParameterSpec => matrix(name, [shape.vocabSize, shape.hiddenSize], 0, tp);
  const bucketNamed = (name: string): Bucket => buffer.buckets.find((b) => b.name === name) as Bucket;
  const single = (name: string, kind: BucketKind, spec: ParameterSpec): { weight: Weight; bucket: Bucket } => {
    const [weight] = buffer.add(name, kind, [[spec]]) as [Weight];
    return { weight, bucket: bucketNamed(name) };
  };

  const split = parts.embedding !== parts.head && shape.tieWordEmbeddings && headKind === 'language';
  const tied = (role: 'owner' | 'copy'): BucketKind => (split ? { ...sharded, tied: role } : sharded);
  const embedding = parts.embedding ? single('embedding', tied('owner'), vocabulary(EMBEDDING)) : null;

  const linears = layerLinears(shape);
  const matrices = new Map<string, Weight>();
  for (const layer of parts.layers) {
    const groups = linears.map((linear) => matricesOf(shape, layer, linear, tp));
    const weights = buffer.add(`layer.${layer}`, { ...sharded, matrices: true }, groups, layerGradients);
    linears.forEach(({ block }, i) => matrices.set(`${layer} ${block}`, weights[i] as Weight));
  }

  let output: { weight: Weight; bucket: Bucket } | null = null;
  if (parts.head && headKind === 'value') {
    // One row, on every tp rank; the first alone gives a gradient (see TokenReader).
    const kind = { ...sharded, tpReplicated: true, tpPartialGradient: tp.size > 1 };
    output = single('value', kind, matrix(VALUE_HEAD, [1, shape.hiddenSize], null, tp));
  } else if (parts.head) {
    if (!shape.tieWordEmbeddings) output = single('output', { ...sharded, matrices: true }, vocabulary(HEAD));
    else output = embedding ?? single('embedding', tied('copy'), vocabulary(EMBEDDING));
  }

  /** Adds a bucket with a weight for each of `blocks` in each layer, and what comes after the layers. */
  const small = <Spec extends { readonly block: string }>(
    name: string,
    kind: Pick<BucketKind, 'tpReplicated' | 'tpPartialGradient'>,
    blocks: readonly Spec[],
    specsOf: (layer: number, block: Spec) => ParameterSpec[],
    last: readonly ParameterSpec[] = [],
  ): { of: (layer: number, block: Spec['block']) => Weight | null; last: Weight | undefined } => {
    const places = parts.layers.flatMap((layer) => blocks.map((block) => ({ layer, block })));
    const groups = [...places.map(({ layer, block }) => specsOf(layer, block)), ...last.map((spec) => [spec])];
    const found =
      groups.length === 0
        ? []
        : buffer.add(name, { ...sharded, ...kind, weightDecay: false, throughout: true }, groups);
    const byPlace = new Map(places.map(({ layer, block }, i) => [`${layer} ${block.block}`, found[i] as Weight]));
    return { of: (layer, block) => byPlace.get(`${layer} ${block}`) ?? null, last: found[places.length] };
  };
  const normOf = (layer: number, { name, width }: NormSpec): ParameterSpec[] => [
    normWeight(`${layerPrefix(layer)}${name}.weight`, widthOf(shape, width)),
  ];
  const ofHeads = ({ width }: NormSpec): boolean => width === 'head';
  const norms = small(
    'norms',
    { tpReplicated: true, tpPartialGradient: sequenceParallel },
    layerNorms(shape).filter((norm) => !ofHeads(norm)),
    normOf,
    parts.head ? [normWeight(FINAL_NORM, shape.hiddenSize)] : [],
  );
  // Each tp rank sees only its heads, with or without sequence parallelism.
  const perHead = { tpReplicated: true, tpPartialGradient: tp.size > 1 };
  const headNorms = small('head-norms', perHead, layerNorms(shape).filter(ofHeads), normOf);
  const cut = { tpReplicated: false, tpPartialGradient: false };
  const biased = linears.filter(({ bias }) => bias);
  const biases = small('biases', cut, biased, (layer, linear) => biasesOf(shape, layer, linear, tp));

  const adaptersOf = layOutAdapters(buffer, shape, tp, parts.layers, adapters);

  const layers = new Map<number, LayerWeights>();
  for (const layer of parts.layers) {
    const linear = (block: LinearBlock): LinearWeights => {
      const weight = matrices.get(`${layer} ${block}`) as Weight;
      return { weight, bias: biases.of(layer, block), adapter: adaptersOf(layer, block) };
    };
    const norm = (block: NormBlock): Weight => norms.of(layer, block) as Weight;
    const [q, k] = [headNorms.of(layer, 'q'), headNorms.of(layer, 'k')];
    layers.set(layer, {
      attention: {
        norm: norm('attention'),
        qkv: linear('qkv'),
        heads: q !== null && k !== null ? { q, k } : null,
        out: linear('o'),
      },
      mlp: { norm: norm('mlp'), gateUp: linear('gate+up'), down: linear('down') },
      bucket: bucketNamed(`layer.${layer}`),
    });
  }
  const head = output && { norm: norms.last as Weight, output: output.weight, bucket: output.bucket };
  return { embedding, layers, head };
}

function matricesOf(shape: ModelShape, layer: number, { parts, inputs, cut }: LinearSpec, tp: Place): ParameterSpec[] {
  return parts.map(({ name, outputs }) => {
    const size: [number, number] = [widthOf(shape, outputs), widthOf(shape, inputs)];
    return matrix(`${layerPrefix(layer)}${name}.weight`, size, cut === 'outputs' ? 0 : 1, tp);
  });
}

function biasesOf(shape: ModelShape, layer: number, { parts }: LinearSpec, tp: Place): ParameterSpec[] {
  return parts.map(({ name, outputs }) => biasVector(`${layerPrefix(layer)}${name}.bias`, widthOf(shape, outputs), tp));
}
