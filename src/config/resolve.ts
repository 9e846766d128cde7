import { checkMerged } from './check-config.js';
import { loadConfigFile } from './load.js';
import { mergeLayers } from './merge.js';
import { parseOverride } from './overrides.js';
import { throwProblems, type Problem } from './problem.js';
import type { ConfigInput, RunConfig } from './schema.js';
import { isPlainObject } from '../base/plain-object.js';
import { settingsOf, type Setting } from './setting.js';

/** What a configuration is put together from, weakest first: defaults < recipe < file < flags < overrides. */
export interface ConfigSources {
  readonly recipe?: { readonly name: string; readonly config: ConfigInput };
  /** A YAML file. */
  readonly file?: string;
  /** Values of command-line flags, `place` the flag's name. */
  readonly flags?: readonly { readonly path: string; readonly value: unknown; readonly place: string }[];
  /** `section.key=value` texts. */
  readonly overrides?: readonly { readonly text: string; readonly place: string }[];
}

export type Origin = Pick<Setting, 'origin' | 'place'>;

export interface Resolution {
  readonly config: RunConfig;
  /** By `section.key`: where its value came from. A key that is not there has the schema's default. */
  readonly origins: ReadonlyMap<string, Origin>;
}

/**
 * Puts a configuration together and checks everything that does not depend on the number of processes. Throws one
 * MbridgeError (exit code 3) with all problems found, each with its place.
 */
export function resolve(sources: ConfigSources): Resolution {
  const problems: Problem[] = [];
  const layers = layersOf(sources, problems);
  // What cannot be read makes everything after it a guess.
  throwProblems(problems);
  const merged = mergeLayers(layers, problems);
  const config = checkMerged(merged, problems);
  const leaves = [...merged.sources].filter(([, source]) => !isPlainObject(source.value));
  return {
    config,
    origins: new Map(leaves.map(([path, { origin, place }]) => [path, { origin, place }])),
  };
}

/** `resolve` without the origins. */
export function resolveConfig(sources: ConfigSources): RunConfig {
  return resolve(sources).config;
}

function layersOf(sources: ConfigSources, problems: Problem[]): Setting[][] {
  const { recipe, file, flags = [], overrides = [] } = sources;
  return [
    recipe === undefined ? [] : settingsOf(recipe.config, 'recipe', `recipe ${recipe.name}`),
    file === undefined ? [] : loadConfigFile(file, problems),
    flags.map(({ path, value, place }): Setting => ({ path: path.split('.'), value, origin: 'flag', place })),
    overrides.flatMap(({ text, place }) => parseOverride(text, place, problems) ?? []),
  ];
}
