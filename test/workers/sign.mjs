// A rank that trains on the same data with weights of either sign, and says what the loss of the data becomes.
import { qwen3TinyPretrainConfig } from '../../dist/src/index.js';
import { build } from './set-up.mjs';

export async function runRank({ worldSize, device, runtime }) {
  const runs = [];
  for (const clip of [0, 1]) {
    for (const weight of [1, -1]) {
      const sizes = { seq_length: 64, global_batch_size: 4 };
      const cfg = qwen3TinyPretrainConfig({ ...sizes, clip_grad: clip, lr_warmup_iters: 0 });
      const built = await build(cfg, { device, runtime, worldSize });
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
      runs.push({ clip, weight, losses });
      data.close();
      model.dispose();
    }
  }
  return runs;
}
