import { join } from 'node:path';
import { staysInside } from '../base/own-file.js';
import { isPlainObject } from '../base/plain-object.js';
import { readTextFile } from '../base/regular-file.js';
import { ADAPTED_MODULES, type Adapters } from './adapters.js';

/** Of a folder of an adapter, as peft saves it. */
export const ADAPTER_CONFIG = 'adapter_config.json';
/** More than any has. */
const MOST_BYTES = 16 << 20;

type Json = Readonly<Record<string, unknown>>;

/** What an adapter_config.json says, or what is wrong with it. */
export type PeftConfig = { readonly adapters: Adapters; readonly base: string | null } | { readonly problem: string };

/** What keys must say for an adapter to be y = W x + alpha / r * B (A x) and nothing else; absent or null is plain too. */
const PLAIN: Readonly<Record<string, readonly unknown[]>> = {
  bias: ['none'],
  fan_in_fan_out: [false],
  lora_bias: [false],
  use_dora: [false],
  use_rslora: [false],
  use_qalora: [false],
  alpha_pattern: ['{}'],
  rank_pattern: ['{}'],
  exclude_modules: [],
  layers_to_transform: [],
  layer_replication: [],
  modules_to_save: [],
  target_parameters: [],
  trainable_token_indices: [],
};

/** Reads `folder`/adapter_config.json as peft does. Whatever our products would compute differently is a problem. */
export function readPeftConfig(folder: string): PeftConfig {
  const file = join(folder, ADAPTER_CONFIG);
  let config: unknown;
  try {
    if (!staysInside(folder, ADAPTER_CONFIG)) return { problem: `${file} is a link that leads out of its folder` };
    config = JSON.parse(readTextFile(file, MOST_BYTES));
  } catch (error) {
    if (error instanceof SyntaxError) return { problem: `${file} is not JSON: ${error.message}` };
    return { problem: `cannot read ${file}: ${(error as Error).message}` };
  }
  if (!isPlainObject(config)) return { problem: `${file} is not a JSON object` };
  const found = peftSettings(config);
  return 'problem' in found ? { problem: `${file}: ${found.problem}` } : found;
}

function peftSettings(config: Json): PeftConfig {
  const { peft_type: type, r, lora_alpha: alpha, target_modules: targets, base_model_name_or_path: base } = config;
  if (type !== 'LORA') return { problem: `peft_type is ${JSON.stringify(type)}; only LORA is built` };
  for (const [key, plain] of Object.entries(PLAIN)) {
    const value = config[key] ?? null;
    const said = isPlainObject(value) ? JSON.stringify(value) : value;
    if (said === null || plain.includes(said)) continue;
    return { problem: `${key} is ${JSON.stringify(value)}, which is not built` };
  }
  if (!Number.isSafeInteger(r) || (r as number) < 1) return { problem: `r is ${JSON.stringify(r)}, no rank` };
  if (typeof alpha !== 'number' || !(alpha > 0)) return { problem: `lora_alpha is ${JSON.stringify(alpha)}` };
  const names: readonly unknown[] =
    targets === 'all-linear' ? ADAPTED_MODULES : Array.isArray(targets) ? targets : [targets];
  const unknown = names.find((name) => !ADAPTED_MODULES.includes(name as string));
  if (names.length === 0 || unknown !== undefined) {
    return { problem: `target_modules has ${JSON.stringify(unknown)}; ${ADAPTED_MODULES.join(', ')} are known` };
  }
  const modules = ADAPTED_MODULES.filter((name) => names.includes(name));
  return { adapters: { rank: r as number, alpha, modules }, base: typeof base === 'string' ? base : null };
}

/** The content of a new adapter_config.json, that peft reads. @param base the folder of the model that it is for */
export function newPeftConfig({ rank, alpha, modules }: Adapters, base: string | null): Json {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: alpha,
    lora_dropout: 0,
    modules_to_save: null,
    r: rank,
    target_modules: modules,
    use_dora: false,
    use_rslora: false,
  };
}
