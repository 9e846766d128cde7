import type { DatasetConfig, RunConfig } from './schema.js';

/** The sets that a run is evaluated on, by name: every reader of them asks here. */
export function validationSets(
  cfg: Pick<RunConfig, 'validation' | 'dataset'>,
): Readonly<Record<string, DatasetConfig>> {
  return cfg.validation.sets;
}
