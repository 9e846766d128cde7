import { EMBEDDING, FINAL_NORM, HEAD, layerPrefix, VALUE_HEAD, type HeadKind } from './decoder.js';
import { familyOf } from './families.js';
import type { LinearSpec, NormSpec, Width } from './family.js';
import type { ModelShape } from './model-shape.js';

/** A parameter of the whole model: our names are Hugging Face's. */
export interface Parameter {
  readonly name: string;
  /** Global shape: [out, in] of a linear layer, [vocab, hidden] of embedding and head, [n] of a norm or a bias. */
  readonly shape: readonly number[];
}

/** Elements of one of the widths. */
export function widthOf(shape: ModelShape, width: Width): number {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = shape;
  return {
    hidden: hiddenSize,
    q: numHeads * headDim,
    kv: numKvHeads * headDim,
    head: headDim,
    ffn: intermediateSize,
  }[width];
}

/** The products of a decoder layer, in forward order. */
export function layerLinears(shape: ModelShape): LinearSpec[] {
  return familyOf(shape).layer.filter((module) => module.kind === 'linear');
}

/** The norms of a decoder layer, in forward order. */
export function layerNorms(shape: ModelShape): NormSpec[] {
  return familyOf(shape).layer.filter((module) => module.kind === 'norm');
}

/** The parameters of decoder layer `layer` (from 0), in forward order. */
function layerParameters(shape: ModelShape, layer: number): Parameter[] {
  const prefix = layerPrefix(layer);
  return familyOf(shape).layer.flatMap((module): Parameter[] => {
    if (module.kind === 'norm') {
      return [{ name: `${prefix}${module.name}.weight`, shape: [widthOf(shape, module.width)] }];
    }
    const inputs = widthOf(shape, module.inputs);
    return module.parts.flatMap(({ name, outputs }) => {
      const rows = widthOf(shape, outputs);
      const weight = { name: `${prefix}${name}.weight`, shape: [rows, inputs] };
      return module.bias ? [weight, { name: `${prefix}${name}.bias`, shape: [rows] }] : [weight];
    });
  });
}

/** Every parameter of a model once, in forward order: embedding, layers, final norm, and the head unless it is tied. */
export function modelParameters(shape: ModelShape, head: HeadKind = 'language'): Parameter[] {
  const { vocabSize, hiddenSize, numLayers, tieWordEmbeddings } = shape;
  const vocabulary = (name: string): Parameter => ({ name, shape: [vocabSize, hiddenSize] });
  const output = head === 'value' ? [{ name: VALUE_HEAD, shape: [1, hiddenSize] }] : [vocabulary(HEAD)];
  return [
    vocabulary(EMBEDDING),
    ...Array.from({ length: numLayers }, (_, layer) => layerParameters(shape, layer)).flat(),
    { name: FINAL_NORM, shape: [hiddenSize] },
    ...(tieWordEmbeddings && head === 'language' ? [] : output),
  ];
}

/** How many numbers a model learns, tied ones once. */
export function parameterCount(shape: ModelShape): number {
  return modelParameters(shape).reduce((sum, parameter) => sum + parameter.shape.reduce((a, b) => a * b, 1), 0);
}

const CUT_BY = {
  q: 'num_attention_heads',
  kv: 'num_key_value_heads',
  ffn: 'intermediate_size',
} as const satisfies Partial<Record<Width, string>>;

/** The `model` keys that the tensor-parallel size must divide: those that count what the cuts go between. */
export function dividedKeys(model: { readonly family: string }): (typeof CUT_BY)[keyof typeof CUT_BY][] {
  const cut = familyOf(model).layer.flatMap((module) => {
    if (module.kind === 'norm') return [];
    return module.cut === 'inputs' ? [module.inputs] : module.parts.map(({ outputs }) => outputs);
  });
  const keys = cut.map((width) => {
    if (width in CUT_BY) return CUT_BY[width as keyof typeof CUT_BY];
    throw new Error(`${width} cannot be cut`);
  });
  return Object.values(CUT_BY).filter((key) => keys.includes(key));
}

/** A product of the whole model on one tensor-parallel rank: y[tokens, outputs] = x[tokens, inputs] W'. */
export interface LinearShape {
  readonly name: string;
  readonly inputs: number;
  readonly outputs: number;
  /** How many of them a model has. */
  readonly count: number;
}

/** Rows of a layer's product on one of `tp` ranks. */
export function localOutputs(shape: ModelShape, { parts, cut }: LinearSpec, tp: number): number {
  const outputs = parts.reduce((sum, part) => sum + widthOf(shape, part.outputs), 0);
  return cut === 'outputs' ? outputs / tp : outputs;
}

/** The products of a micro-batch, as one of `tp` ranks computes them. */
export function linearShapes(shape: ModelShape, tp: number): LinearShape[] {
  const layer = layerLinears(shape).map((linear): LinearShape => {
    const inputs = widthOf(shape, linear.inputs) / (linear.cut === 'inputs' ? tp : 1);
    return { name: linear.block, inputs, outputs: localOutputs(shape, linear, tp), count: shape.numLayers };
  });
  const head = { name: 'head', inputs: shape.hiddenSize, outputs: Math.ceil(shape.vocabSize / tp), count: 1 };
  return [...layer, head];
}
