// A rank that trains with products of e4m3, which on the CPU only a program can ask for, and says what came of it.
import { createHash } from 'node:crypto';
import { provideDistributedModel, qwen3TinyPretrainConfig } from '../../dist/src/index.js';
import { buildStage } from '../../dist/src/model/stage/stage.js';
import { stageSpec } from '../../dist/src/model/stage/stage-spec.js';
import { build } from './set-up.mjs';

/** What blocks of 128 allow, with tp 2 and cp 2 too. */
const SIZES = {
  ...{ num_hidden_layers: 2, hidden_size: 128, intermediate_size: 256, head_dim: 64 },
  ...{ num_attention_heads: 4, num_key_value_heads: 4, seq_length: 512, global_batch_size: 2 },
  // At a rate at which the loss does not plunge: there a rounding that shifts the curve a little moves it far.
  ...{ lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2, train_iters: 20 },
};
/** Places in the optimizer's state: STATE of src/engine/ops.ts. */
const [SKIP, LOSS] = [2, 5];

export async function runRank({ worldSize, device, runtime, options }) {
  const results = [];
  for (const { set = {}, fp8, updates, poison } of options) {
    const cfg = qwen3TinyPretrainConfig({ ...SIZES, ...set });
    const { model, optimizer, data, pgCollection } = await build(cfg, { device, runtime, worldSize }, { fp8 });
    const steps = [];
    const read = {};
    const untrained = await provideDistributedModel(cfg, { pgCollection, device, fp8, trainable: false });
    untrained.evaluate(data.next(1));
    read.untrained = untrained.readLoss();
    untrained.dispose();
    for (let step = 1; step <= updates; step++) {
      if (step === poison) writeNaN(model, device);
      const batches = data.next(step);
      if (step === updates) {
        model.evaluate(batches);
        read.evaluated = model.readLoss();
      }
      model.forwardBackward(batches, { hooks: optimizer.hooks });
      read.trained = model.readLoss();
      read.first ??= read.trained;
      optimizer.step();
      const state = new Float64Array(16);
      device.read(optimizer.state.scalars, state);
      steps.push({ loss: state[LOSS], skipped: state[SKIP] !== 0 });
    }
    const hash = createHash('sha256');
    for (const { values } of model.parameters()) hash.update(values);
    const { tp, cp, dpCp } = pgCollection;
    const stageOf = (of, live) => buildStage(stageSpec(cfg, pgCollection, { device: 'cpu', fp8: of }), live);
    // Without a device the workspace of its attention is not known: what e4m3 adds is.
    const planned = difference(stageOf(fp8, null), stageOf(null, null));
    const allocated = difference(model.stage, stageOf(null, { device, tp, cp, dpCp }));
    const bytes = model.stage.plan.byRegion();
    results.push({ steps, ...read, weights: hash.digest('hex'), bytes, planned, allocated });
    data.close();
    model.dispose();
  }
  return results;
}

/** In bytes, by region. */
function difference(stage, other) {
  const before = other.plan.byRegion();
  return Object.fromEntries(Object.entries(stage.plan.byRegion()).map(([name, bytes]) => [name, bytes - before[name]]));
}

/** Into a norm: it reaches every product behind it. */
function writeNaN(model, device) {
  model.settleParameters();
  const { params } = model.stage.buffer.buckets.find(({ name }) => name === 'norms');
  device.write(params.slice(0, 1), Float32Array.of(NaN));
}
