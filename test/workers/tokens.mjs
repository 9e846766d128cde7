// A worker that scores the first batch, and takes the gradient of a loss of tokens there; both go to the run's folder.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  crossEntropy,
  dpoLoss,
  gspoLoss,
  openDevice,
  CommRuntime,
  ppoLoss,
  provideDistributedModel,
  RowTable,
  setupGroups,
  setupOptimizer,
  setupRunData,
  tokenLoss,
  valueLoss,
} from '../../dist/src/index.js';

/** Tokens at the end of a sample that are replaced. */
const CHANGED = 5;

const LOSSES = {
  crossEntropy,
  /** The same, as a function of log-probabilities. */
  plain: () =>
    tokenLoss({
      name: 'plain',
      loss: ({ logprob }, { loss, derivatives }) => {
        logprob.forEach((value, t) => ([loss[t], derivatives.logprob[t]] = [-value, -1]));
      },
    }),
  ppo: () => ppoLoss(),
  k3: () => ppoLoss({ kl: { weight: 0.5 } }),
  entropy: () => ppoLoss({ entropyBonus: 0.3 }),
  gspo: () => gspoLoss({ clip: 0.2 }),
  dpo: () => dpoLoss(),
  value: () => valueLoss({ clip: 0.01 }),
};

export async function runWorker(context) {
  const { rank, worldSize, runDir, options, config, store, emit } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  const { pgCollection } = await setupGroups(config, { runtime, worldSize });
  const { head = 'language', loss, without, fields: path } = options;
  const trainable = options.trainable === undefined ? true : new RegExp(options.trainable);
  const model = await provideDistributedModel(config, { pgCollection, device, head, trainable, loss: LOSSES[loss]() });
  const { optimizer } = setupOptimizer(config, model, { pgCollection });
  const data = await setupRunData(config, pgCollection);
  const { dp, intraDistOpt } = pgCollection;
  const seq = config.model.seq_length;
  const { global_batch_size: batch, micro_batch_size: microBatch } = config.train;
  const own = batch / dp.size;
  // Fields of the whole batch, one float32 array after the other.
  const names = ['advantage', 'old_logprob', 'ref_logprob', 'returns', 'old_value'];
  const values = path
    ? new Float32Array(new Uint8Array(readFileSync(path)).buffer)
    : new Float32Array(names.length * batch * seq);
  const batches = data.next(1).map((one, m) => {
    const first = (dp.rank * own + m * microBatch) * seq;
    const of = (i) => values.slice(i * batch * seq + first, i * batch * seq + first + microBatch * seq);
    const fields = names.filter((name) => name !== without).map((name) => [name, of(names.indexOf(name))]);
    return { ...one, ...Object.fromEntries(fields) };
  });

  // The first again, with its samples in another order, and with other tokens at the end of each.
  const moved = { ...batches[0] };
  for (const name of ['tokens', 'targets', 'mask']) {
    moved[name] = moved[name].map((_, t, all) => all[(microBatch - 1 - Math.floor(t / seq)) * seq + (t % seq)]);
  }
  const changed = { ...batches[0], tokens: batches[0].tokens.map((token, t) => (t % seq < seq - CHANGED ? token : 3)) };
  const scores = model.score([...batches, moved, changed]);
  const tables = {};
  const table = new RowTable(intraDistOpt, { rows: batch, width: seq });
  for (const name of ['logprob', 'entropy', 'value']) {
    const rows = scores?.slice(0, -2).flatMap((score) => [...score[name]]);
    tables[name] = [...table.share(model.speaks ? { first: dp.rank * own, values: rows } : null)];
  }
  const [first = [], inOrder, before] = [scores?.[0].logprob, scores?.at(-2).logprob, scores?.at(-1).logprob];
  const again = [...first].every((value, t) => {
    const at = (microBatch - 1 - Math.floor(t / seq)) * seq + (t % seq);
    return value === inOrder[at] && (t % seq >= seq - CHANGED || value === before[t]);
  });
  table.dispose();

  model.forwardBackward(batches, { hooks: optimizer.hooks });
  optimizer.reduceGradients();
  const slices = model.gradients().map(({ name, globalShape, rows, cols, owner, values: found }) => {
    return { name, globalShape, rows, cols, owner, values: [...found] };
  });
  model.stage.totals.reduce(model.stage.env.ops, intraDistOpt);
  const { totals } = await model.stage.totals.fetch(model.stage.env.ops);
  const parameters = options.weights
    ? model.parameters().map(({ name, values: found }) => ({ name, values: [...found] }))
    : [];
  writeFileSync(
    join(runDir, `rank-${rank}.json`),
    JSON.stringify({ dp: dp.rank, slices, tables, totals, again, parameters }),
  );
  emit({ type: 'done', rank });
  data.close();
  model.dispose();
  runtime.destroyAll();
  device.close();
}
