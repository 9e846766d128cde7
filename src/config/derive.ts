import type { Merged } from './merge.js';
import type { ConfigInput, RunConfig } from './schema.js';
import { isPlainObject } from '../base/plain-object.js';

interface Rule {
  readonly section: string;
  readonly key: string;
  /** The rule in words, for `show-config --explain`. */
  readonly words: string;
  readonly value: (get: (section: string, key: string) => unknown) => unknown;
}

/** NaN for what is no number, whatever it would make of itself. */
function number(value: unknown): number {
  return typeof value === 'number' ? value : NaN;
}

const RULES: readonly Rule[] = [
  {
    section: 'model',
    key: 'num_key_value_heads',
    words: 'model.num_attention_heads',
    value: (get) => get('model', 'num_attention_heads'),
  },
  {
    section: 'model',
    key: 'head_dim',
    words: 'model.hidden_size / model.num_attention_heads',
    value: (get) => number(get('model', 'hidden_size')) / number(get('model', 'num_attention_heads')),
  },
  {
    section: 'model',
    key: 'sequence_parallel',
    words: 'model.tensor_model_parallel_size > 1, where it divides the tokens of a micro-batch',
    value: (get) => {
      const tp = number(get('model', 'tensor_model_parallel_size') ?? 1);
      const cp = number(get('model', 'context_parallel_size') ?? 1);
      const tokens = number(get('model', 'seq_length') ?? 4096) * number(get('train', 'micro_batch_size') ?? 1);
      return tp > 1 && tokens % (cp * tp) === 0;
    },
  },
  {
    section: 'scheduler',
    key: 'lr_decay_iters',
    words: 'train.train_iters',
    value: (get) => get('train', 'train_iters'),
  },
  {
    section: 'scheduler',
    key: 'lr_warmup_iters',
    words: 'scheduler.lr_warmup_fraction',
    value: (get) => {
      const fraction = get('scheduler', 'lr_warmup_fraction') ?? undefined;
      return fraction === undefined
        ? undefined
        : Math.floor(number(fraction) * number(get('scheduler', 'lr_decay_iters')));
    },
  },
  {
    section: 'ddp',
    key: 'data_parallel_sharding_strategy',
    words: 'optimizer.use_distributed_optimizer',
    value: (get) => (get('optimizer', 'use_distributed_optimizer') === false ? 'no_shard' : 'optim'),
  },
];

/** Whether a key gets its value from other keys where nobody sets it. */
export function isDerived(path: string): boolean {
  return RULES.some(({ section, key }) => `${section}.${key}` === path);
}

/**
 * A configuration without the values that follow from others of it, so that they follow those again where they change.
 * One that somebody set to just that value is taken for one that followed.
 */
export function withoutDerived(config: RunConfig): ConfigInput {
  const values = config as unknown as Record<string, Record<string, unknown>>;
  const get = (section: string, key: string): unknown => values[section]?.[key];
  const follows = (section: string, key: string): boolean =>
    RULES.some((rule) => rule.section === section && rule.key === key && rule.value(get) === get(section, key));
  const left = Object.entries(values).map(([section, content]) => {
    if (!isPlainObject(content)) return [section, content];
    return [section, Object.fromEntries(Object.entries(content).filter(([key]) => !follows(section, key)))];
  });
  return Object.fromEntries(left) as ConfigInput;
}

/** Fills in keys whose default follows from other keys, as long as those are there and make sense. */
export function deriveDefaults({ values, sources }: Merged): void {
  const get = (section: string, key: string): unknown => {
    const content = values[section];
    return isPlainObject(content) ? content[key] : undefined;
  };
  for (const { section, key, words, value } of RULES) {
    if (get(section, key) !== undefined) continue;
    const result = value(get);
    if (result === undefined || (typeof result === 'number' && !Number.isFinite(result))) continue;
    const content = (values[section] ??= {});
    if (!isPlainObject(content)) continue;
    content[key] = result;
    sources.set(`${section}.${key}`, { path: [section, key], value: result, origin: 'derived', place: words });
  }
}
