// Functions of ranks, for the test of runRanks: what returns, and what fails in every way that a thread can.
import { performance } from 'node:perf_hooks';
import { setInterval, setTimeout } from 'node:timers';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryPlan } from '../../dist/src/engine/memory-plan.js';

/** The sum of the ranks, by a group of all of them. */
export async function sum({ rank, worldSize, device, runtime, options }) {
  const { all, add } = await everyone({ rank, worldSize, device, runtime });
  setInterval(() => undefined, 1000); // what a program forgets
  return { rank, size: all.size, sum: add(rank), options, values: Float32Array.of(rank) };
}

/** A group of all ranks, and a reduction over it that takes as long as all of them need to come. */
async function everyone({ worldSize, device, runtime }) {
  const all = await runtime.createGroups('all', [[...Array(worldSize).keys()]]);
  const plan = new MemoryPlan();
  const x = plan.tensor('communication', [1], 'f32');
  plan.commit(device);
  return {
    all,
    add: (value) => {
      device.write(x, Float32Array.of(value));
      all.allReduce(x);
      const found = new Float32Array(1);
      device.read(x, found);
      return found[0];
    },
  };
}

const ENDS = {
  throws: () => {
    throw new RangeError('a layer of 3 heads');
  },
  exits: () => process.exit(3),
  leaves: () => process.exit(0),
  'throws outside': async () => {
    setTimeout(() => {
      throw new Error('a timer went off');
    });
    await sleep(60_000);
  },
  rejects: async () => {
    void Promise.reject(new Error('nobody listens'));
    await sleep(60_000);
  },
  'never ends': () => new Promise(() => undefined),
  'returns a function': () => () => undefined,
};

/** Says when, and ends as it is told. */
async function end({ options: { how, at } }) {
  at[0] = performance.timeOrigin + performance.now();
  return await ENDS[how]();
}

/** Rank 1 fails as it is told while the others, which need it, are in a collective. */
export async function fails(context) {
  const { add } = await everyone(context);
  add(1);
  if (context.rank === 1) return await end(context);
  return add(1);
}

/** Rank 1 fails before the others, which are making a group with it, have heard of it. */
export async function failsEarly(context) {
  if (context.rank === 1) return await end(context);
  return await everyone(context);
}

/** Rank 1 fails; the others are busy with something else. */
export async function failsAlone(context) {
  if (context.rank === 1) return await end(context);
  for (;;) if (context.rank === 0) await sleep(1000);
}

/** Each rank waits in another group for the other: nobody fails by itself. */
export async function deadlocks(context) {
  const { all } = await everyone(context);
  const pair = await context.runtime.createGroups('pair', [[0, 1]]);
  (context.rank === 0 ? all : pair).barrier();
}
