import { z } from 'zod';
import { familyNames } from './families.js';
import { ropeScalingSchema } from './rope.js';

const size = z.int().min(1);

function key<const Name extends string, Schema extends z.ZodType>(name: Name, schema: Schema) {
  return { name, schema };
}

/**
 * The keys of a configuration's `model` section that say what the model is, by Hugging Face's names where it has one:
 * each with its name in the code, and what it takes. Everything that lists these keys folds over this table.
 */
const KEYS = {
  family: key('family', z.enum(familyNames()).default('qwen3').describe('what a layer is made of')),
  vocab_size: key('vocabSize', size.describe('rows of the embedding')),
  hidden_size: key('hiddenSize', size.describe('width of the residual stream')),
  intermediate_size: key('intermediateSize', size.describe('width of the SwiGLU')),
  num_hidden_layers: key('numLayers', size.max(10_000).describe('decoder layers')),
  num_attention_heads: key('numHeads', size.describe('query heads')),
  num_key_value_heads: key('numKvHeads', size.describe('key and value heads; default num_attention_heads')),
  head_dim: key('headDim', size.multipleOf(2).describe('width of a head; default hidden_size / num_attention_heads')),
  rms_norm_eps: key('rmsNormEps', z.number().positive().default(1e-6).describe('epsilon of every RMSNorm')),
  rope_theta: key('ropeTheta', z.number().positive().default(1e6).describe('base of the rotary embedding')),
  rope_scaling: key(
    'ropeScaling',
    ropeScalingSchema.default(null).describe('how rotary frequencies are stretched; null leaves them'),
  ),
  tie_word_embeddings: key(
    'tieWordEmbeddings',
    z.boolean().default(true).describe('the output layer shares the embedding'),
  ),
  pad_token_id: key(
    'padTokenId',
    z.int().min(0).nullable().default(null).describe('token whose embedding gets no gradient from the input'),
  ),
  initializer_range: key(
    'initializerRange',
    z.number().positive().default(0.02).describe('standard deviation of new weights'),
  ),
  max_position_embeddings: key(
    'maxPositionEmbeddings',
    size.default(40960).describe('longest sequence the model is meant for'),
  ),
};

type Keys = typeof KEYS;
export type ModelKey = keyof Keys;

/** What the schema of the `model` section holds under these keys. */
export const MODEL_SCHEMA = Object.fromEntries(Object.entries(KEYS).map(([name, { schema }]) => [name, schema])) as {
  [K in ModelKey]: Keys[K]['schema'];
};

export const MODEL_KEYS = Object.keys(KEYS) as ModelKey[];

/** These keys with their values, as a resolved configuration has them. */
export type ModelSettings = { readonly [K in ModelKey]: z.output<Keys[K]['schema']> };

/** The same as the code names them. The output width of the attention is numHeads * headDim. */
export type ModelShape = { readonly [K in ModelKey as Keys[K]['name']]: ModelSettings[K] };

/** What a model is, out of a resolved configuration (or its `model` section alone). */
export function modelShape(cfg: { readonly model: ModelSettings }): ModelShape {
  return Object.fromEntries(MODEL_KEYS.map((name) => [KEYS[name].name, cfg.model[name]])) as ModelShape;
}

/** The value that a shape has under one of the section's keys. */
export function valueOf(shape: ModelShape, key: ModelKey): unknown {
  return shape[KEYS[key].name];
}

/** Of a `model` section, the keys that say what the model is, not how it is spread or fed. */
export function modelSettings(model: ModelSettings): ModelSettings {
  return Object.fromEntries(MODEL_KEYS.map((name) => [name, model[name]])) as ModelSettings;
}
