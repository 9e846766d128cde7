import type { RunConfig } from '../config/schema.js';
import { validationSets, type EvaluationSource } from '../config/validation-sets.js';
import { EvaluationSet } from './evaluation-set.js';
import { openDataset } from './open-dataset.js';
import { orderOf } from './sample-order.js';

type SetupConfig = Pick<RunConfig, 'model' | 'train' | 'dataset' | 'tokenizer' | 'validation'>;
type Replica = { readonly rank: number; readonly size: number };

/**
 * Opens the validation sets of a configuration, for this process among the replicas.
 * @throws MbridgeError exit 7 for a file that is unreadable or malformed, or has less than is to be evaluated
 */
export function setupEvaluationSets(cfg: SetupConfig, dpGroup: Replica): EvaluationSet[] {
  const opened: EvaluationSet[] = [];
  try {
    for (const [name, source] of Object.entries(validationSets(cfg))) {
      opened.push(setupEvaluationSet(cfg, name, source, dpGroup));
    }
  } catch (error) {
    for (const set of opened) set.close();
    throw error;
  }
  return opened;
}

/** One set of {@link setupEvaluationSets}: as much of it as section `validation` says. */
export function setupEvaluationSet(
  cfg: SetupConfig,
  name: string,
  { dataset: section, split }: EvaluationSource,
  dpGroup: Replica,
): EvaluationSet {
  const { eval_iters: batches, eval_samples } = cfg.validation;
  const { global_batch_size: globalBatchSize, micro_batch_size: microBatchSize } = cfg.train;
  const samples = eval_samples ?? (batches === null ? null : batches * globalBatchSize);
  // As many tokens as were asked for, or all that there are.
  const tail = samples === null ? 'pad' : 'leave';
  const sizes = { vocabSize: cfg.model.vocab_size, seqLength: cfg.model.seq_length };
  const dataset = openDataset({ dataset: section, tokenizer: cfg.tokenizer, ...sizes, tail, split });
  const seed = section.type !== 'mock' && section.shuffle ? section.seed : undefined;
  try {
    return new EvaluationSet({
      ...{ name, dataset, samples, order: orderOf(dataset, seed) },
      ...{ dpRank: dpGroup.rank, dpSize: dpGroup.size, ...sizes, globalBatchSize, microBatchSize },
    });
  } catch (error) {
    dataset.close();
    throw error;
  }
}
