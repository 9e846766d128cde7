import { z } from 'zod';

const positive = z.number().positive();

/** How the frequencies of the rotary embedding are stretched for longer sequences; keys as in Hugging Face's files. */
export const ropeScalingSchema = z
  .strictObject({
    rope_type: z.literal('llama3').describe("the only one that is built: Llama 3.1's"),
    factor: positive.describe('what low frequencies are divided by'),
    low_freq_factor: positive.describe('waves longer than the original length over this are low'),
    high_freq_factor: positive.describe('waves shorter than the original length over this stay; between is blended'),
    original_max_position_embeddings: z.int().min(1).describe('length that the frequencies were made for'),
  })
  .nullable();

export type RopeScaling = z.output<typeof ropeScalingSchema>;
export type RopeType = NonNullable<RopeScaling>['rope_type'];

type Scale = (frequency: number, scaling: NonNullable<RopeScaling>) => number;

const SCALES: Readonly<Record<RopeType, Scale>> = {
  /** As transformers' `_compute_llama3_parameters`: long waves are stretched, short ones stay, between is blended. */
  llama3: (frequency, s) => {
    const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = s;
    const wave = (2 * Math.PI) / frequency;
    if (wave > length / low) return frequency / factor;
    if (wave < length / high) return frequency;
    const smooth = (length / wave - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  },
};

/** The names of the scalings that are built. */
export const ROPE_TYPES = Object.keys(SCALES) as RopeType[];

/**
 * The angles by which a position turns each pair of a head, [headDim / 2]; null where they are the plain
 * ropeTheta^(-2i / headDim).
 */
export function scaledFrequencies(shape: {
  readonly headDim: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
}): Float64Array | null {
  const { headDim, ropeTheta, ropeScaling: scaling } = shape;
  if (scaling === null) return null;
  const plain = Float64Array.from({ length: headDim / 2 }, (_, i) => ropeTheta ** ((-2 * i) / headDim));
  return plain.map((frequency) => SCALES[scaling.rope_type](frequency, scaling));
}

/**
 * Cosines, then sines, of every position's angles: float32 [positions, 2 * frequencies], each computed in float64 and
 * rounded once, as the engine makes the plain table.
 */
export function rotations(frequencies: Float64Array, positions: number): Float32Array {
  const half = frequencies.length;
  const table = new Float32Array(positions * 2 * half);
  for (let p = 0; p < positions; p++) {
    frequencies.forEach((frequency, i) => {
      table[p * 2 * half + i] = Math.cos(p * frequency);
      table[p * 2 * half + half + i] = Math.sin(p * frequency);
    });
  }
  return table;
}
