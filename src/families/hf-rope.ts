import { isPlainObject } from '../base/plain-object.js';
import { ROPE_KEYS, ropeScalingSchema, type RopeScaling } from './rope.js';

type Json = Readonly<Record<string, unknown>>;
type Rope = { readonly rope_theta: unknown; readonly rope_scaling: RopeScaling };

/** What transformers takes where no theta is given, in every family that is built. */
const DEFAULT_THETA = 10_000;

/**
 * The rotary embedding of a config.json. transformers 5 keeps it in `rope_parameters`, older files in `rope_theta` and
 * `rope_scaling`; where several are there, `rope_scaling` wins over `rope_parameters`, and the theta within either over
 * the one outside.
 */
export function readHfRope(config: Json): Rope | { readonly problem: string } {
  const settings = settingsOf(config);
  const theta = settings['rope_theta'] ?? config['rope_theta'] ?? DEFAULT_THETA;
  const type = String(settings['rope_type'] ?? settings['type'] ?? 'default');
  const byLayerType = Object.keys(settings).find((key) => isPlainObject(settings[key]));
  if (byLayerType !== undefined) return { problem: `has a rotary embedding of its own for ${byLayerType}` };
  const partial = config['partial_rotary_factor'] ?? settings['partial_rotary_factor'] ?? 1;
  if (partial !== 1) return { problem: 'rotates a part of each head only; only the whole is built' };
  const factorOne = type === 'linear' && settings['factor'] === 1;
  if (type === 'default' || factorOne) return { rope_theta: theta, rope_scaling: null };
  const keys = ROPE_KEYS.get(type);
  if (keys === undefined) {
    const built = ['default', ...ROPE_KEYS.keys()].join(', ');
    return { problem: `scales the rotary embedding (${type}); built are ${built}` };
  }
  const longest = config['max_position_embeddings'];
  const length = config['original_max_position_embeddings'] ?? settings['original_max_position_embeddings'] ?? longest;
  // transformers' own meaning of a factor that is null.
  const factor = type === 'yarn' ? (settings['factor'] ?? Number(longest) / Number(length)) : settings['factor'];
  const said = { ...settings, factor, rope_type: type, original_max_position_embeddings: length };
  // What is of another scaling changes nothing, as there; what is of none may mean something.
  const others = [...ROPE_KEYS.values()].flat().filter((key) => !keys.includes(key));
  const ignored = [...others, 'rope_theta', 'type', 'partial_rotary_factor'];
  const given = Object.fromEntries(
    Object.entries(said).filter(([key, value]) => value !== null && !ignored.includes(key)),
  );
  const scaling = ropeScalingSchema.safeParse(given);
  if (scaling.success) return { rope_theta: theta, rope_scaling: scaling.data };
  const issues = scaling.error.issues.map(({ path, message }) => [...path, message].join(': '));
  return { problem: `the ${type} scaling of its rotary embedding is not complete: ${issues.join('; ')}` };
}

function settingsOf(config: Json): Json {
  const found = ['rope_scaling', 'rope_parameters'].map((key) => config[key]);
  return (found.find((value) => isPlainObject(value) && Object.keys(value).length > 0) as Json | undefined) ?? {};
}

/** What of a config.json's rotary keys must change for it to say `wanted`. */
export function hfRopeChanges(base: Json, wanted: Partial<Rope>): Record<string, unknown> {
  const said = readHfRope(base);
  if (wanted.rope_theta === undefined) return {};
  const { rope_theta: theta, rope_scaling: scaling = null } = wanted;
  const same = !('problem' in said) && said.rope_theta === theta && sameScaling(said.rope_scaling, scaling);
  if (same && ['rope_theta', 'rope_parameters'].some((key) => key in base)) return {};
  if (isPlainObject(base['rope_parameters'])) {
    const rest = 'rope_theta' in base ? { rope_theta: theta } : {};
    const scaled = 'rope_scaling' in base ? { rope_scaling: null } : {};
    return { ...rest, ...scaled, rope_parameters: { ...(scaling ?? { rope_type: 'default' }), rope_theta: theta } };
  }
  const scaled = scaling !== null || 'rope_scaling' in base ? { rope_scaling: scaling } : {};
  return { rope_theta: theta, ...scaled };
}

function sameScaling(a: RopeScaling, b: RopeScaling): boolean {
  const text = (scaling: RopeScaling): string => JSON.stringify(Object.entries(scaling ?? {}).sort());
  return text(a) === text(b);
}
