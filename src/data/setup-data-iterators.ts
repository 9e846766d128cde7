import type { RunConfig } from '../config/schema.js';
import { DataIterator } from './data-iterator.js';
import type { Dataset } from './dataset.js';
import type { Split } from './indexed/split.js';
import { openDataset } from './open-dataset.js';
import { OwnDataset } from './own-dataset.js';
import { orderOf } from './sample-order.js';

export interface SetupDataOptions {
  /** This process among the replicas; ranks of one tp, cp and pp set read the same samples. */
  dpGroup: { readonly rank: number; readonly size: number };
  vocabSize: number;
  seqLength: number;
  globalBatchSize: number;
  microBatchSize: number;
  /** Part of the documents that is read, where `cfg.dataset` has such; default train. */
  split?: Split;
  /** Samples consumed by all replicas before update `startStep`; default (startStep - 1) * globalBatchSize. */
  consumedSamples?: number;
  /** A program's own samples, read instead of what `cfg.dataset` names; it is the iterator's to close. */
  dataset?: Dataset;
  /** Seed by which the samples of `dataset` are shuffled; without one they are read in order. */
  shuffleSeed?: number;
  /** The first update that will be read; default: the one that `consumedSamples` leads to at this batch size. */
  startStep?: number;
}

/**
 * Opens `cfg.dataset`, or takes `options.dataset`, and returns this replica's iterator. A jsonl file is read through once
 * here. Throws MbridgeError: exit 3 for settings, exit 7 for a file that is unreadable, empty or malformed.
 */
export async function setupDataIterators(
  cfg: Pick<RunConfig, 'dataset' | 'tokenizer'>,
  options: SetupDataOptions,
): Promise<DataIterator> {
  const { dpGroup, vocabSize, seqLength, globalBatchSize, microBatchSize } = options;
  const { dataset: section, tokenizer } = cfg;
  const sizes = { vocabSize, seqLength };
  const split = options.split ?? 'train';
  const dataset: Dataset =
    options.dataset === undefined
      ? openDataset({ dataset: section, tokenizer, split, ...sizes })
      : new OwnDataset(options.dataset, sizes);
  const own = options.dataset !== undefined;
  const configured = section.type !== 'mock' && section.shuffle ? section.seed : undefined;
  const seed = own ? options.shuffleSeed : configured;
  const type = own ? 'own' : section.type;
  const startStep = options.startStep ?? Math.floor((options.consumedSamples ?? 0) / globalBatchSize) + 1;
  return new DataIterator({
    dataset,
    settings: { type, shuffle: seed !== undefined, ...(seed === undefined ? {} : { seed }) },
    order: orderOf(dataset, seed),
    dpRank: dpGroup.rank,
    dpSize: dpGroup.size,
    vocabSize,
    seqLength,
    globalBatchSize,
    microBatchSize,
    startStep,
    consumedSamples: options.consumedSamples ?? (startStep - 1) * globalBatchSize,
  });
}
