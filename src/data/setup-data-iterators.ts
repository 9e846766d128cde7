import type { RunConfig } from '../config/schema.js';
import { DataIterator } from './data-iterator.js';
import { openDataset } from './open-dataset.js';
import { SampleOrder } from './sample-order.js';

export interface SetupDataOptions {
  /** This process among the replicas; ranks of one tp, cp and pp set read the same samples. */
  dpGroup: { readonly rank: number; readonly size: number };
  vocabSize: number;
  seqLength: number;
  globalBatchSize: number;
  microBatchSize: number;
  /** Samples consumed by all replicas before update `startStep`; default (startStep - 1) * globalBatchSize. */
  consumedSamples?: number;
  /** The first update that will be read; default: the one that `consumedSamples` leads to at this batch size. */
  startStep?: number;
}

/**
 * Opens `cfg.dataset` and returns this replica's iterator. A jsonl file is read through once here. Throws MbridgeError:
 * exit 3 for settings, exit 7 for a file that is unreadable, empty or malformed.
 */
export async function setupDataIterators(
  cfg: Pick<RunConfig, 'dataset' | 'tokenizer'>,
  options: SetupDataOptions,
): Promise<DataIterator> {
  const { dpGroup, vocabSize, seqLength, globalBatchSize, microBatchSize } = options;
  const { dataset: section, tokenizer } = cfg;
  const dataset = openDataset({ dataset: section, tokenizer, vocabSize, seqLength });
  const shuffle = section.type !== 'mock' && section.shuffle;
  const startStep = options.startStep ?? Math.floor((options.consumedSamples ?? 0) / globalBatchSize) + 1;
  return new DataIterator({
    dataset,
    settings: { type: section.type, shuffle, ...(shuffle ? { seed: section.seed } : {}) },
    order: new SampleOrder(dataset.length, shuffle ? section.seed : undefined),
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
