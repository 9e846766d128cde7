import { setupEvaluationSet } from '../data/setup-evaluation-sets.js';
import type { WorkerContext } from '../job/worker/context.js';
import { evaluationNumbers } from './evaluation-numbers.js';
import { Evaluator } from './evaluator.js';
import { untilStopped, withModel } from './open-model.js';

/** What one rank of `mbridge eval --data` does: the loss of a model on the configuration's dataset, forward passes alone. */
export function runWorker(context: WorkerContext): Promise<void> {
  const { config: cfg, log, rank } = context;
  return withModel(context, async ({ model, pgCollection }) => {
    const set = setupEvaluationSet(cfg, 'data', { dataset: cfg.dataset, split: 'train' }, pgCollection.dp);
    log.info(`${set.describe()}, ${cfg.model.seq_length} tokens at a time`);
    const { goesOn, state } = untilStopped(context);
    const evaluator = new Evaluator({ model, pgCollection, batches: () => set.batches(), goesOn });
    const started = performance.now();
    const evaluation = await evaluator.run();
    const seconds = (performance.now() - started) / 1000;
    if (rank === 0 && !state.stopped) {
      const numbers = evaluationNumbers(set, evaluation, seconds);
      const memory = { arena_bytes: model.stage.plan.totalBytes };
      const rate = Math.round(set.positions / seconds);
      context.emit({ type: 'result', ...numbers, tokens_per_s: rate, ...memory });
    }
    set.close();
  });
}
