import { z } from 'zod';

const positive = z.number().positive();
const original = z.int().min(1).describe('length that the frequencies were made for');

/** Long waves are stretched, short ones stay, between is blended: Llama 3.1. */
const llama3 = z.strictObject({
  rope_type: z.literal('llama3'),
  factor: positive.describe('what low frequencies are divided by'),
  low_freq_factor: positive.describe('waves longer than the original length over this are low'),
  high_freq_factor: positive.describe('waves shorter than the original length over this stay; between is blended'),
  original_max_position_embeddings: original,
});

/** Every frequency is divided. */
const linear = z.strictObject({ rope_type: z.literal('linear'), factor: positive });

/** The base grows with the length of the sequence beyond `max_position_embeddings` (NTK). */
const dynamic = z.strictObject({ rope_type: z.literal('dynamic'), factor: positive });

/** As llama3 with a ramp over the pairs, and cosines and sines that are scaled: YaRN (arXiv 2309.00071). */
const yarn = z.strictObject({
  rope_type: z.literal('yarn'),
  factor: positive.describe('what low frequencies are divided by'),
  original_max_position_embeddings: original,
  beta_fast: positive.optional().describe('turns within the original length above which a pair stays; default 32'),
  beta_slow: positive.optional().describe('turns below which a pair is stretched; default 1'),
  attention_factor: z.number().min(0).optional().describe('of cosines and sines; default by factor and mscale'),
  mscale: z.number().min(0).optional(),
  mscale_all_dim: z.number().min(0).optional(),
  truncate: z.boolean().optional().describe('whether the ramp begins and ends at whole pairs; default true'),
});

const SCHEMAS = [linear, dynamic, yarn, llama3] as const;

/** How the frequencies of the rotary embedding are stretched for longer sequences; keys as in Hugging Face's files. */
export const ropeScalingSchema = z.discriminatedUnion('rope_type', SCHEMAS).nullable();

export type RopeScaling = z.output<typeof ropeScalingSchema>;
type Scaling = NonNullable<RopeScaling>;
export type RopeType = Scaling['rope_type'];
type Of<Type extends RopeType> = Extract<Scaling, { rope_type: Type }>;

/** The keys of each scaling that is built. */
export const ROPE_KEYS: ReadonlyMap<string, readonly string[]> = new Map(
  SCHEMAS.map(({ shape }) => [shape.rope_type.value, Object.keys(shape)]),
);

interface Rope {
  readonly headDim: number;
  readonly ropeTheta: number;
  readonly maxPositionEmbeddings: number;
}

/** @param pair number of the pair that is turned by `frequency` */
type Scale<Type extends RopeType> = (
  frequency: number,
  pair: number,
  scaling: Of<Type>,
  rope: Rope,
  seq: number,
) => number;

/** As transformers' `modeling_rope_utils.py`, in float64. */
const SCALES: { readonly [Type in RopeType]: Scale<Type> } = {
  linear: (frequency, _, { factor }) => frequency / factor,

  dynamic: (frequency, pair, { factor }, { headDim, maxPositionEmbeddings: length }, seq) => {
    const growth = (factor * Math.max(seq, length)) / length - (factor - 1);
    // The base times growth^(d / (d - 2)).
    return frequency * growth ** ((-2 * pair) / (headDim - 2));
  },

  yarn: (frequency, pair, s, { headDim, ropeTheta }) => {
    const { factor, beta_fast: fast = 32, beta_slow: slow = 1, truncate = true } = s;
    const length = s.original_max_position_embeddings;
    const pairOf = (turns: number): number =>
      (headDim * Math.log(length / (turns * 2 * Math.PI))) / (2 * Math.log(ropeTheta));
    const [begin, end] = [pairOf(fast), pairOf(slow)];
    const low = Math.max(truncate ? Math.floor(begin) : begin, 0);
    const high = Math.min(truncate ? Math.ceil(end) : end, headDim - 1);
    const width = low === high ? 0.001 : high - low;
    const stretched = Math.min(Math.max((pair - low) / width, 0), 1);
    return (frequency / factor) * stretched + frequency * (1 - stretched);
  },

  llama3: (frequency, _, s) => {
    const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = s;
    const wave = (2 * Math.PI) / frequency;
    if (wave > length / low) return frequency / factor;
    if (wave < length / high) return frequency;
    const smooth = (length / wave - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  },
};

/** A rotary embedding that is not the plain one. */
export interface ScaledRope {
  /** Radians by which a position turns each pair of a head, [headDim / 2]. */
  readonly frequencies: Float64Array;
  /** What cosines and sines are multiplied by. */
  readonly factor: number;
}

/**
 * The rotary embedding of sequences of `seq` tokens; null where it is the plain one, of frequencies
 * ropeTheta^(-2i / headDim).
 */
export function scaledRope(shape: Rope & { readonly ropeScaling: RopeScaling }, seq: number): ScaledRope | null {
  const { headDim, ropeTheta, ropeScaling: scaling } = shape;
  if (scaling === null) return null;
  const scale = SCALES[scaling.rope_type] as Scale<RopeType>;
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, i) =>
    scale(ropeTheta ** ((-2 * i) / headDim), i, scaling as never, shape, seq),
  );
  return { frequencies, factor: scaling.rope_type === 'yarn' ? attentionFactor(scaling) : 1 };
}

function attentionFactor({ factor, attention_factor: given, mscale, mscale_all_dim: all }: Of<'yarn'>): number {
  const of = (m: number): number => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
  if (given !== undefined) return given;
  return mscale && all ? of(mscale) / of(all) : of(1);
}
