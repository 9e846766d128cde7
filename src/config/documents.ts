import type { DatasetConfig, RunConfig } from './schema.js';

/** Whether samples of a dataset hold documents that attention keeps apart. */
function holdsDocumentsApart(dataset: DatasetConfig): boolean {
  if (dataset.type === 'mock') return false;
  return dataset.type === 'chat' ? dataset.packing : dataset.document_attention;
}

/** The same of anything that a run reads: its model is planned for both. */
export function keepsDocumentsApart({ dataset, validation }: Pick<RunConfig, 'dataset' | 'validation'>): boolean {
  return [dataset, ...Object.values(validation.sets)].some(holdsDocumentsApart);
}
