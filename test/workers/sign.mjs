// A worker that trains on the same data with weights of either sign, and says what the loss of the data becomes.
import { build, openRuntime } from './set-up.mjs';

export async function runWorker(context) {
  const { config, worldSize } = context;
  const { device, runtime } = openRuntime(context);
  for (const clip of [0, 1]) {
    for (const weight of [1, -1]) {
      const optimizer = { ...config.optimizer, clip_grad: clip };
      const built = await build({ ...config, optimizer }, { device, runtime, worldSize });
      const { model, data } = built;
      const batches = data.next(1);
      const weighted = batches.map((batch) => ({ ...batch, mask: batch.mask.map((x) => x * weight) }));
      const loss = () => {
        model.evaluate(batches);
        const { lossSum, tokens } = model.readLoss();
        return lossSum / tokens;
      };
      const losses = [loss()];
      for (let step = 1; step <= 3; step++) {
        model.forwardBackward(weighted, { hooks: built.optimizer.hooks });
        built.optimizer.step();
        losses.push(loss());
      }
      context.emit({ type: 'trained', clip, weight, losses });
      data.close();
      model.dispose();
      runtime.destroyAll();
    }
  }
  device.close();
}
