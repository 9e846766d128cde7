// A rank that builds one model after another over the same ranks, on one runtime.
import { qwen3TinyPretrainConfig, train } from '../../dist/src/index.js';
import { build } from './set-up.mjs';

const LAYOUTS = [
  { tp: 2, destroy: false },
  { tp: 2, destroy: true },
  { tp: 1, destroy: false },
  { tp: 1, destroy: true },
];

export async function runRank({ worldSize, device, runtime }) {
  const steps = [];
  for (const { tp, destroy } of LAYOUTS) {
    const sizes = { seq_length: 64, train_iters: 2, global_batch_size: 4 };
    const cfg = qwen3TinyPretrainConfig({ ...sizes, tensor_model_parallel_size: tp, sequence_parallel: tp > 1 });
    const built = await build(cfg, { device, runtime, worldSize });
    runtime.watch();
    const onStep = ({ step, loss }) => steps.push({ tp, step, loss });
    await train({ cfg, ...built, onStep });
    built.data.close();
    built.model.dispose();
    if (destroy) runtime.destroyAll();
  }
  return steps;
}
