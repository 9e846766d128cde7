// A worker that builds one model after another over the same ranks, on one runtime.
import { train } from '../../dist/src/index.js';
import { build, openRuntime } from './set-up.mjs';

const LAYOUTS = [
  { tp: 2, destroy: false },
  { tp: 2, destroy: true },
  { tp: 1, destroy: false },
  { tp: 1, destroy: true },
];

export async function runWorker(context) {
  const { config, worldSize } = context;
  const { device, runtime } = openRuntime(context);
  for (const { tp, destroy } of LAYOUTS) {
    const model = { ...config.model, tensor_model_parallel_size: tp, sequence_parallel: tp > 1 };
    const cfg = { ...config, model };
    const built = await build(cfg, { device, runtime, worldSize });
    runtime.watch();
    const onStep = ({ step, loss }) => context.emit({ type: 'trained', tp, step, loss });
    await train({ cfg, ...built, onStep });
    built.data.close();
    built.model.dispose();
    if (destroy) runtime.destroyAll();
  }
  runtime.destroyAll();
  device.close();
}
