/**
 * A loss of one's own, on any layout: every token has a weight that its batch brings, as a policy's advantages would be.
 * Here the first sample of each micro-batch counts twice. Every 5 updates the model is evaluated on a fixed batch.
 *
 *   node dist/examples/own-loss/weighted-samples.js --nproc 2 --tp-size 2
 *   node dist/examples/own-loss/weighted-samples.js --nproc 4 --tp-size 2 --pp-size 2 --train-iters 20
 *
 * The numbers of every update are in metrics.ndjson of the run's folder.
 */
import {
  Evaluator,
  isMain,
  openRun,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  weightedCrossEntropy,
  type MicroBatch,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

export const runWorker: RunWorker = async (context) => {
  const { rank, config, options } = context;
  const { first } = options as { first: number };
  const run = await openRun(context, { loss: weightedCrossEntropy() });
  const { model, pgCollection, data } = run;

  /** The batches of the configuration's dataset, each with one field more. */
  const weighted = (step: number): MicroBatch[] =>
    data.next(step).map((batch) => {
      const weight = batch.mask.map((counted, token) => (token < config.model.seq_length ? first * counted : counted));
      return { ...batch, weight };
    });

  const evaluator = new Evaluator({ model, pgCollection, batches: () => [weighted(1)] });
  await run.train({
    data: { next: weighted },
    every: [
      evaluator.every(5, (step, { loss, tokens }) => {
        if (rank === 0) context.emit({ type: 'evaluation', step, loss, tokens });
      }),
    ],
  });
  await run.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      nproc: undefined as number | undefined,
      'tp-size': 1,
      'pp-size': 1,
      'train-iters': 10,
      first: 2,
    });
    const config = qwen3TinyPretrainConfig({
      tensor_model_parallel_size: o['tp-size'],
      pipeline_model_parallel_size: o['pp-size'],
      train_iters: o['train-iters'],
      seq_length: 64,
    });
    return runDistributed({
      config,
      nproc: processesToStart(o.nproc, 2),
      worker: import.meta.url,
      options: { first: o.first },
    });
  });
}
