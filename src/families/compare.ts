import { MODEL_KEYS, valueOf, type ModelKey, type ModelShape } from './model-shape.js';

/** Keys that change no output of a trained model: how new weights are drawn, how long it is meant for, what is trained. */
const NOT_THE_FUNCTION: readonly ModelKey[] = ['initializer_range', 'max_position_embeddings', 'pad_token_id'];

/** Keys that weights may be taken over in spite of, where that is asked for: they change no shape. */
export const CHANGEABLE_KEYS = ['rms_norm_eps', 'rope_theta', 'rope_scaling'] as const satisfies readonly ModelKey[];

/** Where two models compute something else from the same weights. */
export interface ModelDifference {
  readonly key: ModelKey;
  readonly found: unknown;
  readonly wanted: unknown;
}

/** What makes `found` another function than `wanted`, but for `allowed` keys. */
export function modelDifferences(
  found: ModelShape,
  wanted: ModelShape,
  allowed: readonly string[] = [],
): ModelDifference[] {
  // The one scaling that is relative to the length that the model is meant for.
  const dynamic = [found, wanted].some(({ ropeScaling }) => ropeScaling?.rope_type === 'dynamic');
  const free = dynamic ? NOT_THE_FUNCTION.filter((key) => key !== 'max_position_embeddings') : NOT_THE_FUNCTION;
  return MODEL_KEYS.filter((key) => !free.includes(key) && !allowed.includes(key)).flatMap((key) => {
    const [a, b] = [valueOf(found, key), valueOf(wanted, key)];
    return text(a) === text(b) ? [] : [{ key, found: a, wanted: b }];
  });
}

/** In words, each with both values. */
export function describeDifferences(differences: readonly ModelDifference[]): string {
  return differences
    .map(({ key, found, wanted }) => `${key} is ${text(found)} there and ${text(wanted)} in the configuration`)
    .join('; ');
}

/** Whatever the order of an object's keys. */
function text(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  return JSON.stringify(Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))));
}
