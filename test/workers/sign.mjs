// A rank that trains on the same data with weights of either sign, and says what the loss of each half of it becomes.
import { crossEntropy, qwen3TinyPretrainConfig, weightedCrossEntropy } from '../../dist/src/index.js';
import { build } from './set-up.mjs';

/** `field` of the batches is what the two halves of every sample are weighted by. */
export async function runRank({ worldSize, device, runtime, options }) {
  const runs = [];
  for (const { clip, field, weights } of options) {
    const sizes = { seq_length: 32, global_batch_size: 4, num_hidden_layers: 1, hidden_size: 64 };
    const cfg = qwen3TinyPretrainConfig({ ...sizes, clip_grad: clip, lr_warmup_iters: 0 });
    const loss = field === 'mask' ? crossEntropy() : weightedCrossEntropy();
    const built = await build(cfg, { device, runtime, worldSize }, { loss });
    const { model, optimizer, data } = built;
    const batches = data.next(1);
    const weighted = (name, [first, second]) =>
      batches.map((batch) => ({
        weight: batch.mask,
        ...batch,
        [name]: batch.mask.map((x, t) => x * (t % cfg.model.seq_length < cfg.model.seq_length / 2 ? first : second)),
      }));
    const lossOf = (halves) => {
      model.evaluate(weighted(field, halves));
      return model.readLoss().lossSum;
    };
    const look = () => [lossOf([1, 0]), lossOf([0, 1])];
    const losses = [look()];
    for (let step = 1; step <= 3; step++) {
      model.forwardBackward(weighted(field, weights), { hooks: optimizer.hooks });
      optimizer.step();
      losses.push(look());
    }
    runs.push(losses);
    data.close();
    model.dispose();
  }
  return runs;
}
