// A worker that distils a student from a teacher of another layout, which lies on the first ranks: what the teacher says
// of the first batch, and for each loss the student's gradient there, go to the run's folder.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  CommRuntime,
  distillationLoss,
  FullDistillationLoss,
  HyperCommGrid,
  modelShape,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  RowTable,
  setupDataIterators,
  setupGroups,
  setupOptimizer,
  setupRunData,
  WeightTransfer,
} from '../../dist/src/index.js';

export async function runWorker(context) {
  const { rank, worldSize, runDir, options, config, store } = context;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: 60 });
  const { pgCollection } = await setupGroups(config, { runtime, worldSize });
  const { teacher: of, k, losses, tp } = options;
  const grid = new HyperCommGrid({
    ...{ shape: [tp, 1, 1, 1], dimNames: ['tp', 'cp', 'dp', 'pp'], rankOffset: 0, worldSize, backend: 'nccl' },
    name: 'teacher',
  });
  const world = await runtime.createGroups('world', [[...Array(worldSize).keys()]]);
  const { global_batch_size: batch, micro_batch_size: size } = config.train;
  const seq = config.model.seq_length;
  const shape = modelShape(of);
  const hidden = shape.hiddenSize;
  const tables = {
    narrow: new RowTable(world, { rows: batch, width: seq * k }),
    wide: new RowTable(world, { rows: batch, width: seq * hidden }),
  };

  let teacher = null;
  let seen = null;
  if (grid.isRankInGrid(rank)) {
    const pgs = await ProcessGroupCollection.fromGrid(grid, runtime);
    teacher = await provideDistributedModel(of, { pgCollection: pgs, device, trainable: false });
    const sizes = { vocabSize: shape.vocabSize, seqLength: seq, globalBatchSize: batch, microBatchSize: size };
    const data = await setupDataIterators(config, { dpGroup: pgs.dp, ...sizes });
    seen = data.next(1).map((one) => ({ ...one }));
    data.close();
  }
  const share = (table, rows) =>
    table.share(teacher?.speaks ? { first: 0, values: rows.flatMap((r) => [...r]) } : null);
  const top = {};
  for (const temperature of [1, 2]) {
    const found = teacher?.topLogprobs(seen, { k, temperature });
    const [ids, logprobs] = ['ids', 'logprobs'].map((name) => {
      return share(
        tables.narrow,
        found?.map((each) => each[name]),
      );
    });
    top[temperature] = { ids: Int32Array.from(ids), logprobs };
  }
  // Of the targets that are among the k, the log-probability is that of `logprobs`, to the bit.
  let targets = null;
  if (teacher?.speaks) targets = { among: 0, differ: 0 };
  teacher?.logprobs(seen)?.forEach((own, m) => {
    own.forEach((value, t) => {
      const token = m * size * seq + t;
      const at = top[1].ids.subarray(token * k, (token + 1) * k).indexOf(seen[m].targets[t]);
      if (at < 0 || targets === null) return;
      targets.among++;
      if (top[1].logprobs[token * k + at] !== value) targets.differ++;
    });
  });
  const states = share(tables.wide, teacher?.hiddenStates(seen));

  const { dp, intraDistOpt } = pgCollection;
  const dumps = {};
  for (const [name, { temperature, normalize }] of Object.entries(losses)) {
    const full = normalize === undefined;
    const loss = full
      ? new FullDistillationLoss({ teacher: shape, temperature })
      : distillationLoss({ k, temperature, normalize });
    const model = await provideDistributedModel(config, { pgCollection, device, loss });
    if (full) {
      const transfer = await WeightTransfer.create({ group: world, store, name, source: teacher, target: loss });
      transfer.run();
      transfer.dispose();
    }
    const { optimizer } = setupOptimizer(config, model, { pgCollection });
    const data = await setupRunData(config, pgCollection);
    const own = batch / dp.size;
    const batches = data.next(1).map((one, m) => {
      const of = (all, width) =>
        all.slice((dp.rank * own + m * size) * width, (dp.rank * own + (m + 1) * size) * width);
      const { ids, logprobs } = top[temperature];
      return {
        ...one,
        teacher_ids: of(ids, seq * k),
        teacher_logprobs: of(logprobs, seq * k),
        teacher_hidden: of(states, seq * hidden),
      };
    });
    model.forwardBackward(batches, { hooks: optimizer.hooks });
    optimizer.reduceGradients();
    const slices = model.gradients().map((slice) => ({ ...slice, values: [...slice.values] }));
    model.stage.totals.reduce(model.stage.env.ops, intraDistOpt);
    const { totals } = await model.stage.totals.fetch(model.stage.env.ops);
    dumps[name] = { slices, totals };
    data.close();
    model.dispose();
  }
  const tops = Object.fromEntries(
    Object.entries(top).map(([t, { ids, logprobs }]) => [t, { ids: [...ids], logprobs: [...logprobs] }]),
  );
  writeFileSync(join(runDir, `rank-${rank}.json`), JSON.stringify({ top: tops, targets, dumps }));
  for (const table of Object.values(tables)) table.dispose();
  teacher?.dispose();
  runtime.destroyAll();
  device.close();
}
