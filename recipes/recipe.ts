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
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ({ path: pathOf(key), value: value as unknown, place: `argument ${key}` }));
  return resolveConfig({ recipe, flags });
}
