// A worker that trains with a loss of its own and batches that bring a field for it, and evaluates as it goes.
import { crossEntropy, Evaluator, weightedCrossEntropy } from '../../dist/src/index.js';
import { setUp } from './set-up.mjs';

/** Weighted cross entropy that also adds up the squares of its weights. */
function observedLoss() {
  const inner = weightedCrossEntropy();
  return {
    ...inner,
    name: 'observed',
    totals: ['squares'],
    plan: (env, totals) => {
      const { apply } = inner.plan(env, totals);
      return {
        apply: (logits, fields) => {
          env.ops.sumOfSquares(fields('weight'), totals.of('squares'), env.reduceWorkspace(1), true);
          apply(logits, fields);
        },
      };
    },
  };
}

export async function runWorker(context) {
  const { rank, options, emit } = context;
  const { weight, field } = options;
  const run = await setUp(context, undefined, { loss: weight === null ? crossEntropy() : observedLoss() });
  const { model, pgCollection } = run;
  const batchesOf = (step) =>
    run.data.next(step).map((batch) => ({ ...batch, [field]: batch.mask.map((counted) => counted * (weight ?? 0)) }));
  const evaluate = (batches) => new Evaluator({ model, pgCollection, batches: () => [batches] }).run();
  // One more micro-batch than a step has, and each alone.
  const first = batchesOf(1);
  const whole = await evaluate([...first, first[0]]);
  const parts = [];
  for (const batch of [...first, first[0]]) parts.push(await evaluate([batch]));
  const evaluator = new Evaluator({ model, pgCollection, batches: () => [batchesOf(1)] });
  const evaluations = [];
  const acts = [];
  await run.train({
    data: { next: batchesOf },
    every: [
      evaluator.every(2, (step, evaluation) => evaluations.push({ step, ...evaluation })),
      { every: 3, act: (step) => acts.push(step) },
    ],
  });
  if (rank === 0) emit({ type: 'evaluated', whole, parts, evaluations, acts });
  await run.close();
}
