// A worker that builds, trains and disposes of one model after another, and counts what the process holds between them.
import { readdirSync, readFileSync } from 'node:fs';
import { planShards, StateSnapshot } from '../../dist/src/checkpoint/run/state-snapshot.js';
import { HostImage } from '../../dist/src/checkpoint/files/host-image.js';
import { train } from '../../dist/src/index.js';
import { build, openRuntime } from './set-up.mjs';

const LAYOUTS = [
  { tensor_model_parallel_size: 2, sequence_parallel: true },
  { pipeline_model_parallel_size: 2 },
  {}, // data parallel, with the gradient ring
];

function held(binding) {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    ...binding.handles(),
    threads: readdirSync('/proc/self/task').length,
    files: readdirSync('/proc/self/fd').length,
    shared: maps.filter((line) => line.includes('/dev/shm/')).length,
  };
}

export async function runWorker(context) {
  const { config, rank, worldSize } = context;
  const { device, runtime } = openRuntime(context);
  const rounds = Number(process.env.MBRIDGE_TEST_ROUNDS);
  const counts = [];
  for (let round = 0; round < rounds; round++) {
    const model = { ...config.model, ...LAYOUTS[round % LAYOUTS.length] };
    const ddp = { ...config.ddp, data_parallel_sharding_strategy: 'optim_grads' };
    const cfg = { ...config, model, ddp };
    const built = await build(cfg, { device, runtime, worldSize });
    runtime.watch();
    await train({ cfg, ...built });
    const { optimizer, pgCollection } = built;
    const snapshot = new StateSnapshot(
      device,
      optimizer.state,
      planShards(optimizer.state, { tp: pgCollection.tp, rank }),
      ({ bytes }) => HostImage.shared(bytes),
    );
    await snapshot.take();
    snapshot.release();
    built.data.close();
    built.model.dispose();
    runtime.destroyAll();
    // Every layout has been built once before anything is compared: threads and libraries are then there.
    if ((round + 1) % LAYOUTS.length === 0) counts.push(held(device.binding));
  }
  const built = await build(config, { device, runtime, worldSize });
  const losses = [];
  for (let startStep = 1; startStep <= 20; startStep++) {
    const cfg = { ...config, train: { ...config.train, train_iters: startStep } };
    const { last } = await train({ cfg, ...built, startStep });
    losses.push(last.loss);
  }
  const events = device.binding.handles().events;
  built.data.close();
  built.model.dispose();
  runtime.destroyAll();
  context.emit({ type: 'held', rank, counts, losses, events });
  device.close();
}
