// A rank of a few collectives, one of which one rank does not come to, or calls otherwise.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDevice } from '../../dist/src/index.js';
import { MemoryPlan } from '../../dist/src/engine/memory-plan.js';
import { CommRuntime } from '../../dist/src/groups/comm/comm-runtime.js';

export async function runWorker({ rank, worldSize, config, device: kind, deviceIndex, threads, store, options }) {
  const device = openDevice(kind, deviceIndex, threads);
  const { check_collectives: checkCollectives } = config.dist;
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: options.timeoutS, checkCollectives });
  // Joining has the same time as a collective: all begin at once.
  await store.set(`here/${rank}`, Buffer.from('1'));
  for (let other = 0; other < worldSize; other++) await store.get(`here/${other}`, 60_000);
  const all = await runtime.createGroups('all', [[...Array(worldSize).keys()]]);
  const dp = await runtime.createGroups('dp', [[0, worldSize - 1], ...(worldSize > 2 ? [[1]] : [])]);
  runtime.watch();
  const plan = new MemoryPlan();
  const x = plan.tensor('communication', [64], 'f32');
  const y = plan.tensor('communication', [64], 'f32');
  const bytes = plan.tensor('communication', [64], 'bf16');
  const big = plan.tensor('communication', [options.act === 'is stopped in it' ? 1 << 22 : 1], 'f32');
  plan.commit(device);
  device.phase(0, 'setting up');
  all.allReduce(x);
  all.allReduce(x);
  if (dp.size > 1) dp.reduceScatter(x, y.slice(0, x.size / 2));
  device.phase(17, 'the optimizer');
  if (rank === options.culprit) await ACTS[options.act]({ all, dp, x, y, bytes, big, store });
  else await REST[options.act]?.({ all, dp, x, y, big, rank, store });
  try {
    all.allReduce(x);
    device.synchronize();
  } catch (error) {
    runtime.abandon(error);
  }
}

const HALVES = [
  { offset: 0, count: 32 },
  { offset: 32, count: 32 },
];

const never = () => sleep(600_000);

/** What the culprit does where the others call all_reduce #3 of all. */
const ACTS = {
  sleeps: never,
  'is stopped': () => process.kill(process.pid, 'SIGSTOP'),
  // More than the others could do without it.
  'is stopped in it': async ({ all, big, store }) => {
    await store.set('stopped', Buffer.from(String(process.pid)));
    spawn('sh', ['-c', `sleep 2; kill -STOP ${process.pid}`], { stdio: 'ignore' });
    all.allReduce(big);
  },
  'is killed': () => process.kill(process.pid, 'SIGKILL'),
  'waits elsewhere': ({ dp }) => dp.barrier(),
  'does not send': never,
  'calls another op': ({ all, x }) => all.broadcast(x, 0),
  'calls another size': ({ all, x }) => all.allReduce(x.slice(0, 32)),
  'calls another dtype': ({ all, bytes }) => all.allReduce(bytes),
  'calls an all to all': ({ all, x, y }) => all.allToAll(x, y),
  'sends other parts': ({ all, x, y }) =>
    all.allToAll(x, y, { send: HALVES, receive: [{ offset: 0, count: 16 }, HALVES[1]] }),
  sends: ({ all, x }) => all.exchange([{ kind: 'send', tensor: x, peer: 0 }]),
  receives: ({ all, x }) => all.exchange([{ kind: 'receive', tensor: x, peer: 0 }]),
  'expects another size': ({ dp, x }) => dp.exchange([{ kind: 'receive', tensor: x.slice(0, 32), peer: 0 }]),
  'calls the same': () => undefined,
};

/** Waits until a process is stopped. */
async function isStopped(pid) {
  while (!/\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) await sleep(10);
}

/** What the others do before. */
const REST = {
  'sends other parts': ({ all, x, y }) => all.allToAll(x, y),
  'expects another size': ({ dp, x }) => dp.exchange([{ kind: 'send', tensor: x, peer: 1 }]),
  'is stopped in it': async ({ all, big, store }) => {
    await isStopped(Buffer.from(await store.get('stopped', 60_000)).toString());
    all.allReduce(big);
  },
  'does not send': ({ dp, x, rank }) => {
    if (rank === 0) dp.exchange([{ kind: 'receive', tensor: x, peer: 1 }]);
  },
};
