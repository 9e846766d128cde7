// A worker that generates, and then looks at what it generated with the training forward.
import {
  CommRuntime,
  crossEntropy,
  generate,
  openDevice,
  provideDistributedModel,
  setupGroups,
  VocabularySoftmax,
} from '../../dist/src/index.js';

/** Cross entropy that keeps the loss of every token, micro-batch after micro-batch. */
function keepingLosses(device, kept) {
  return {
    ...crossEntropy(),
    plan: (env, { lossAndTokens }) => {
      const softmax = new VocabularySoftmax(env);
      return {
        apply: (logits, fields) => {
          softmax.statistics(logits, fields('targets'));
          softmax.gradient(logits, fields('targets'), fields('mask'), lossAndTokens);
          const losses = new Float32Array(env.sizes.tokens);
          device.read(softmax.rowLoss, losses);
          kept.push(losses);
        },
      };
    },
  };
}

function batchOf(sequences, seq) {
  const n = sequences.length * seq;
  const tokens = new Int32Array(n);
  const targets = new Int32Array(n);
  sequences.forEach((sequence, i) => {
    tokens.set(sequence.slice(0, seq), i * seq);
    targets.set(sequence.slice(1, seq + 1), i * seq);
  });
  const positions = Int32Array.from(tokens, (_, i) => i % seq);
  const order = Int32Array.from(tokens, (_, i) => i).sort((a, b) => tokens[a] - tokens[b] || a - b);
  return { tokens, targets, positions, order, mask: new Float32Array(n).fill(1) };
}

export async function runWorker(context) {
  const { config: cfg, rank, worldSize, options } = context;
  const { generation, prompts, firstRow = 0, ...how } = options;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: 60 });
  const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
  const kept = [];
  const loss = keepingLosses(device, kept);
  const onlyGenerates = how.onlyGenerates ?? false;
  const common = { pgCollection, device, trainable: false, generation, onlyGenerates };
  const model = await provideDistributedModel(cfg, { ...common, loss });
  const streamed = [];
  const before = process.cpuUsage();
  const rows = await generate(model, prompts, { ...how, firstRow, onToken: (token) => streamed.push(token) });
  const { user, system } = process.cpuUsage(before);
  const tokens = rows.reduce((sum, row) => sum + row.tokens.length, 0);
  const isLast = pgCollection.pp.rank === pgCollection.pp.size - 1;
  let differing = 0;
  let compared = 0;
  if (!onlyGenerates) {
    const { seq_length: seq } = cfg.model;
    const { micro_batch_size: size } = cfg.train;
    const sequences = rows.map((row) => [...prompts[row.row - firstRow], ...row.tokens]);
    const batches = [];
    while (sequences.length % (2 * size) !== 0) sequences.push([0]);
    for (let at = 0; at < sequences.length; at += size) batches.push(batchOf(sequences.slice(at, at + size), seq));
    model.evaluate(batches);
    const losses = kept.flatMap((part) => [...part]);
    rows.forEach(({ logprobs, row }, i) => {
      const first = i * seq + prompts[row - firstRow].length - 1;
      if (isLast) logprobs.forEach((logprob, j) => ((differing += logprob !== -losses[first + j]), compared++));
    });
  }
  if (isLast && pgCollection.tp.rank === 0) {
    const generated = rows.map((row) => ({ ...row, tokens: [...row.tokens], logprobs: [...row.logprobs] }));
    const { cache } = model.stage.plan.byRegion();
    const cpuMs = (user + system) / 1000 / tokens;
    context.emit({ type: 'generated', rows: generated, streamed, differing, compared, cache, cpuMs });
  }
  model.dispose();
  runtime.destroyAll();
  device.close();
}
