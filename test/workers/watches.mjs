// A rank with two runtimes. Rank 1 leaves the first one's group without a word; both ranks go on in the second's.
import { MemoryPlan } from '../../dist/src/engine/memory-plan.js';
import { CommRuntime } from '../../dist/src/groups/comm/comm-runtime.js';

export async function runRank({ rank, store, device, runtime: first }) {
  const runtimeOf = (scope) => new CommRuntime({ rank, device, store, timeoutSeconds: 60, scope });
  const second = runtimeOf('second');
  const make = (runtime, name) => runtime.createGroups(name, [[0, 1]]);
  const plan = new MemoryPlan();
  const x = plan.tensor('communication', [4], 'f32');
  plan.commit(device);

  const failing = await make(first, 'failing');
  const healthy = await make(second, 'healthy');
  first.watch();
  second.watch();
  if (rank === 1) failing.abort();
  // Nobody calls the failing group: its watch alone can find it.
  await store.get(`${'waited'}/${rank}`, 1500).catch(() => undefined);
  const cause = (runtime) => {
    try {
      runtime.abandon(new Error('own error'));
    } catch (error) {
      return error.message;
    }
  };
  healthy.allReduce(x);
  const found = cause(first);
  // What is made after the failure knows nothing of it.
  const third = runtimeOf('third');
  const fresh = await make(third, 'fresh');
  third.watch();
  fresh.allReduce(x);
  healthy.allReduce(x);
  fresh.barrier();
  const after = cause(third);
  first.destroyAll();
  const { watches } = device.binding.handles();
  second.destroyAll();
  third.destroyAll();
  plan.release();
  return { found, after, watches };
}
