import type { DatasetConfig, RunConfig } from './schema.js';

/** What an evaluation reads: a dataset, and where it has several, one of its splits. */
export interface EvaluationSource {
  readonly dataset: DatasetConfig;
  readonly split: 'train' | 'validation';
}

/**
 * The sets that a run is evaluated on, by name: every reader of them asks here. The validation split of the training
 * data is one of them, named `validation`, unless a set of its own has that name.
 */
export function validationSets(
  cfg: Pick<RunConfig, 'validation' | 'dataset'>,
): Readonly<Record<string, EvaluationSource>> {
  const { dataset, validation } = cfg;
  const own = Object.entries(validation.sets).map(([name, section]) => [name, { dataset: section, split: 'train' }]);
  const held = dataset.type === 'indexed' && Number(dataset.split.split(',')[1] ?? 0) > 0;
  const split = held ? { validation: { dataset, split: 'validation' } as const } : {};
  return { ...split, ...(Object.fromEntries(own) as Record<string, EvaluationSource>) };
}
