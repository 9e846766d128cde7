import { familyOf } from './families.js';
import { hfSettings } from './hf-config.js';
import { hfRopeChanges } from './hf-rope.js';
import { MODEL_KEYS, type ModelSettings } from './model-shape.js';

type Json = Readonly<Record<string, unknown>>;

/** Keys that are not Hugging Face's, or that are written in a way of their own. */
const OWN: readonly (keyof ModelSettings)[] = ['family', 'rope_theta', 'rope_scaling'];

/** The content of a new config.json: every key, whatever transformers would take without it. */
export function newHfConfig(model: ModelSettings): Json {
  const family = familyOf(model);
  const base = { architectures: [family.architecture], model_type: family.name, ...family.hf.written };
  const keys = MODEL_KEYS.filter((key) => !OWN.includes(key) && model[key] !== null);
  const sizes = Object.fromEntries(keys.map((key) => [key, model[key]]));
  return { ...base, ...sizes, ...hfRopeChanges(base, model) };
}

/** What must change in a config.json for it to describe `model`; empty where it does already. */
export function hfChanges(base: Json, model: Partial<ModelSettings>): Json {
  const said = hfSettings(base);
  const known = 'problem' in said ? base : said.sizes;
  const others = MODEL_KEYS.filter((key) => !OWN.includes(key) && model[key] !== undefined);
  const changed = others.filter((key) => (known[key] ?? null) !== model[key]).map((key) => [key, model[key]]);
  const { num_hidden_layers: layers } = model;
  const types: unknown = base['layer_types'];
  const stale = layers !== undefined && Array.isArray(types) && types.length !== layers;
  const layerTypes = stale ? { layer_types: Array.from({ length: layers }, () => 'full_attention') } : {};
  return { ...(Object.fromEntries(changed) as Json), ...layerTypes, ...hfRopeChanges(base, model) };
}
