// A worker that trains a model, gives its memory back, and trains another in the same groups. Reports when this rank
// closed what the ranks had opened to each other, and when it gave its memory back.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { provideDistributedModel, setupOptimizer } from '../../dist/src/index.js';
import { setUp } from './set-up.mjs';

const now = () => performance.timeOrigin + performance.now();

function bound(binding, name) {
  const value = binding[name];
  return typeof value === 'function' ? value.bind(binding) : value;
}

export async function runWorker(context) {
  const closed = [];
  const freed = [];
  const run = await setUp(context, (opened) => {
    const { binding } = opened;
    const noting =
      (name, times) =>
      (...args) => {
        times.push(now());
        return binding[name](...args);
      };
    const noted = { commUnshare: noting('commUnshare', closed), arenaFree: noting('arenaFree', freed) };
    const names = Object.getOwnPropertyNames(binding);
    opened.binding = Object.fromEntries(names.map((name) => [name, noted[name] ?? bound(binding, name)]));
  });
  const { device, pgCollection, model, optimizer, data } = run;
  const train = (trained, update) => {
    const losses = [1, 2].map((step) => {
      trained.forwardBackward(data.next(step), { hooks: update.hooks });
      update.step();
      return trained.readLoss()?.lossSum ?? null;
    });
    return losses;
  };
  const first = train(model, optimizer);
  // The last to come is one that the others must wait for.
  if (context.rank === context.worldSize - 1) await sleep(300);
  model.dispose();
  const times = { closed: [...closed], freed: [...freed] };
  const next = await provideDistributedModel(context.config, { pgCollection, device });
  const second = train(next, setupOptimizer(context.config, next, { pgCollection }).optimizer);
  next.dispose();
  context.emit({ type: 'replaced', rank: context.rank, first, second, ...times });
  await run.close();
}
