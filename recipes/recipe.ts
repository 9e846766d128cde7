import { configJsonSchema, sectionKeys } from '../src/config/json-schema.js';
import { resolveConfig } from '../src/config/resolve.js';
import type { ConfigInput, RunConfig } from '../src/config/schema.js';

/** A named, complete configuration. */
export interface Recipe {
  /** As the command line takes it: `qwen3-4b`. */
  readonly name: string;
  readonly description: string;
  readonly config: ConfigInput;
}

type ModelInput = NonNullable<ConfigInput['model']>;

/** A published model pretrained from new weights: the batch and the schedule that all of them begin with. */
export function pretrainRecipe(name: string, title: string, model: ModelInput): Recipe {
  const { num_hidden_layers: layers, hidden_size: hidden } = model;
  return {
    name,
    description: `${title}: ${layers} layers, hidden ${hidden}; seq 4096, global batch 32, 100 updates on mock data`,
    config: {
      model: { ...model, seq_length: 4096 },
      train: { train_iters: 100, global_batch_size: 32, micro_batch_size: 1 },
      optimizer: { lr: 3e-4, min_lr: 3e-5, adam_beta1: 0.9, adam_beta2: 0.95, adam_eps: 1e-8, weight_decay: 0.1 },
      scheduler: { lr_decay_style: 'cosine', lr_warmup_fraction: 0.1 },
      dataset: { type: 'mock' },
    },
  };
}

const FLAT_SECTIONS = ['model', 'train', 'optimizer', 'scheduler'] as const;
type FlatSection = (typeof FLAT_SECTIONS)[number];
type Flat<S extends FlatSection> = Partial<NonNullable<ConfigInput[S]>>;

/** Keys of model, train, optimizer and scheduler as they are (no name is in two of them), and any section as a whole. */
export type RecipeOverrides = ConfigInput & Flat<'model'> & Flat<'train'> & Flat<'optimizer'> & Flat<'scheduler'>;

/**
 * The resolved configuration of a recipe with `overrides` laid over it. Throws MbridgeError (config) with all problems.
 * The result is the caller's own and may be changed.
 */
export function recipeConfig(recipe: Recipe, overrides: RecipeOverrides = {}): RunConfig {
  const sections = configJsonSchema().properties ?? {};
  const pathOf = (key: string): string => {
    const home = FLAT_SECTIONS.find((name) => key in sectionKeys(sections[name] ?? {}));
    return home === undefined ? key : `${home}.${key}`;
  };
  const flags = Object.entries(overrides)
    .filter(([, value]: [string, unknown]) => value !== undefined)
    .map(([key, value]) => ({ path: pathOf(key), value: value as unknown, place: `argument ${key}` }));
  return resolveConfig({ recipe, flags });
}
