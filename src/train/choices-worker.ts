import { ChoiceRows } from '../data/choice-rows.js';
import { EvaluationSet } from '../data/evaluation-set.js';
import { SampleOrder } from '../data/sample-order.js';
import type { WorkerContext } from '../job/worker/context.js';
import { rowCrossEntropy, rowTotal } from '../model/losses/row-cross-entropy.js';
import { accuracies, scoreQuestions } from './choice-scores.js';
import { Evaluator } from './evaluator.js';
import { untilStopped, withModel } from './open-model.js';
import type { Groups } from './setup.js';

/** What a worker of {@link runWorker} is told beside the configuration. */
export interface ChoicesOptions {
  /** File of choices: see ChoiceRows. */
  readonly rows: string;
  /** Whether each question is an event. */
  readonly each: boolean;
}

/** What one rank of `mbridge eval --choices` does: the log-probability of every choice, in batches of rows. */
export function runWorker(context: WorkerContext): Promise<void> {
  const { config: cfg, log, rank } = context;
  const { rows: path, each } = context.options as ChoicesOptions;
  const { global_batch_size: batch, micro_batch_size: microBatchSize } = cfg.train;
  const sizes = { vocabSize: cfg.model.vocab_size, seqLength: cfg.model.seq_length };
  const placeOf = ({ dp }: Groups) => ({ microBatches: batch / dp.size, replica: dp.rank, replicas: dp.size });
  return withModel(
    context,
    async ({ model, pgCollection }) => {
      const { dp } = pgCollection;
      const dataset = new ChoiceRows(path, cfg.model.seq_length);
      const set = new EvaluationSet({
        ...{ name: 'choices', dataset, order: new SampleOrder(dataset.length, undefined), samples: null },
        ...{ dpRank: dp.rank, dpSize: dp.size, ...sizes, globalBatchSize: batch, microBatchSize },
      });
      log.info(`${dataset.describe()}, each padded to ${cfg.model.seq_length} tokens`);
      const { goesOn, state } = untilStopped(context);
      const evaluator = new Evaluator({ model, pgCollection, batches: () => set.batches(), goesOn });
      const started = performance.now();
      const losses: number[] = [];
      for await (const { totals } of evaluator.reports()) {
        for (let row = 0; row < batch; row++) losses.push(totals[rowTotal(row)] ?? NaN);
      }
      const seconds = Math.round(performance.now() - started) / 1000;
      if (rank === 0 && !state.stopped) {
        const rows = Array.from({ length: dataset.length }, (_, i) => ({
          ...dataset.row(i),
          loss: losses[i] as number,
        }));
        const questions = scoreQuestions(rows);
        if (each) for (const question of questions) context.emit({ type: 'question', ...question });
        const counts = { questions: questions.length, choices: rows.length };
        context.emit({ type: 'result', ...accuracies(questions), ...counts, eval_s: seconds });
      }
      set.close();
    },
    (groups) => rowCrossEntropy(placeOf(groups)),
  );
}
