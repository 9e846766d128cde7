/**
 * What a loss in JavaScript takes beside the built-in cross entropy: qwen3-tiny on the CPU with the one and with the other, step by
 * step in turn in one process. Both are the same loss, so their numbers have to agree.
 *
 *   node dist/bench/token-loss.js [--micro-batch 8] [--threads 2] [--steps 25]
 */
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import {
  crossEntropy,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  setupGroups,
  setupOptimizer,
  setupRunData,
  tokenLoss,
  type Loss,
} from '../src/index.js';
import type { RankContext } from '../src/testing/rank-context.js';
import { runRanks } from '../src/testing/run-ranks.js';
import { quantile } from './steps.js';

interface Shape {
  readonly microBatch: number;
  readonly steps: number;
}

/** Milliseconds of a loss's part in a step, and of the step. */
interface Times {
  readonly loss: readonly number[];
  readonly step: readonly number[];
  readonly lastLoss: number;
}

const WARM_UP = 3;

/** Cross entropy, as a program would write it. */
function ownCrossEntropy(): Loss {
  return tokenLoss({
    name: 'own',
    loss: ({ logprob }, { loss, derivatives }) => {
      for (let token = 0; token < logprob.length; token++) loss[token] = -logprob[token]!;
      derivatives.logprob.fill(-1);
    },
  });
}

/** The loss, and what it adds up to `spent`. */
function timed(loss: Loss, spent: { ms: number }): Loss {
  return {
    ...loss,
    plan: (env, totals) => {
      const { apply } = loss.plan(env, totals);
      return {
        apply: (...args) => {
          const begun = performance.now();
          apply(...args);
          spent.ms += performance.now() - begun;
        },
      };
    },
  };
}

export async function runRank({ device, runtime, worldSize, options }: RankContext<Shape>): Promise<Times[]> {
  const { microBatch, steps } = options;
  const cfg = qwen3TinyPretrainConfig({ global_batch_size: 8, micro_batch_size: microBatch });
  const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const sides = [];
  for (const loss of [crossEntropy(), ownCrossEntropy()]) {
    const spent = { ms: 0 };
    const model = await provideDistributedModel(cfg, { pgCollection, device, loss: timed(loss, spent) });
    const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
    sides.push({ model, optimizer, spent, loss: [] as number[], step: [] as number[], lastLoss: NaN });
  }
  const data = await setupRunData(cfg, pgCollection);
  for (let step = 1; step <= steps; step++) {
    const batches = data.next(step);
    for (const side of step % 2 === 0 ? sides : [...sides].reverse()) {
      const { model, optimizer, spent } = side;
      spent.ms = 0;
      const begun = performance.now();
      model.forwardBackward(batches, { hooks: optimizer.hooks });
      optimizer.step();
      device.synchronize();
      side.lastLoss = model.readLoss()?.lossSum ?? NaN;
      if (step <= WARM_UP) continue;
      side.step.push(performance.now() - begun);
      side.loss.push(spent.ms);
    }
  }
  return sides.map(({ loss, step, lastLoss }) => ({ loss, step, lastLoss }));
}

// The ranks load this file too.
if (isMainThread) {
  const { values } = parseArgs({
    options: {
      'micro-batch': { type: 'string', default: '8' },
      threads: { type: 'string', default: '2' },
      steps: { type: 'string', default: '25' },
    },
  });
  const options: Shape = { microBatch: Number(values['micro-batch']), steps: Number(values.steps) };
  const threads = Number(values.threads);
  const [sides] = await runRanks<Times[]>(1, import.meta.url, { options, threads, timeoutSeconds: 600 });
  const [builtin, own] = sides as [Times, Times];
  if (builtin.lastLoss !== own.lastLoss) throw new Error(`losses differ: ${builtin.lastLoss} and ${own.lastLoss}`);
  // Other programs take the cores now and then, never give time: the quarter that was fastest says what the work takes.
  const [a, b, step] = [builtin.loss, own.loss, builtin.step].map((times) => quantile(times, 0.25)) as [
    number,
    number,
    number,
  ];
  const percent = (100 * (b - a)) / step;
  console.log(
    `of a step of ${step.toFixed(1)} ms: cross entropy ${a.toFixed(2)} ms, tokenLoss ${b.toFixed(2)} ms, ${percent.toFixed(2)} % more`,
  );
}
