/**
 * Two models one after the other, each on ranks and in a layout of its own: a writer that generates, and a reader that is trained
 * on what it wrote, while the writer is at the next batch already. Tokens go over a group that has both, and no group is
 * global: no collective of one model can reach a rank of the other.
 *
 *   node dist/examples/pipelines/two-stage-pipeline.js --nproc 4 --writer-tp-size 2 --reader-pp-size 2
 *   node dist/examples/pipelines/two-stage-pipeline.js --nproc 3 --writer-tp-size 2
 */
import {
  CommRuntime,
  generate,
  HyperCommGrid,
  isMain,
  MbridgeError,
  NON_MEMBER,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  RowTable,
  runDistributed,
  runMain,
  SampleBatches,
  setupOptimizer,
  train,
  type Groups,
  type MicroBatch,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

const SEQ = 32;
const VOCABULARY = 64;

interface Layouts {
  readonly writer: { readonly tp: number };
  readonly reader: { readonly tp: number; readonly pp: number };
}

export const runWorker: RunWorker = async (context) => {
  const { rank, worldSize, store, config, options } = context;
  const { writer, reader } = options as Layouts;
  const replicas = (worldSize - writer.tp) / (reader.tp * reader.pp);
  if (!Number.isInteger(replicas) || replicas < 1) {
    const found = `${worldSize - writer.tp} ranks beside the writer's, for a reader of tp ${reader.tp} x pp ${reader.pp}`;
    throw new MbridgeError('config', 'MB_EXAMPLE', found, { hint: 'set --nproc to the sum of both' });
  }
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: config.dist.timeout_s });
  /** The groups of a model, or null on ranks that have no part of it. */
  const join = async (
    name: string,
    shape: [number, number, number, number],
    rankOffset: number,
  ): Promise<Groups | null> => {
    const dimNames = ['tp', 'cp', 'dp', 'pp'];
    const grid = new HyperCommGrid({ shape, dimNames, rankOffset, worldSize, backend: 'nccl', name });
    return grid.isRankInGrid(rank) ? await ProcessGroupCollection.fromGrid(grid, runtime) : null;
  };
  const writerPgs = await join('writer', [writer.tp, 1, 1, 1], 0);
  const readerPgs = await join('reader', [reader.tp, 1, replicas, reader.pp], writer.tp);
  const bridge = await runtime.createGroups('bridge', [Array.from({ length: worldSize }, (_, i) => i)]);
  if (bridge === NON_MEMBER) throw new Error('every rank is in the bridge');
  runtime.watch();

  const { global_batch_size: rows, micro_batch_size: size, train_iters: updates } = config.train;
  const width = SEQ + 1;
  const pages = new RowTable(bridge, { rows, width });

  if (writerPgs !== null) {
    const generation = { slots: rows, context: width };
    const model = await provideDistributedModel(config, {
      pgCollection: writerPgs,
      device,
      generation,
      onlyGenerates: true,
    });
    for (let step = 1; step <= updates; step++) {
      const prompts = Array.from({ length: rows }, (_, row) => [(step * 5 + row * 3) % VOCABULARY]);
      // The most probable tokens: what follows is a function of the writer's weights that can be learned.
      const written = await generate(model, prompts, { maxTokens: SEQ, temperature: 0 });
      const values = written.flatMap(({ row, tokens }) => [...prompts[row]!, ...tokens]);
      pages.share(model.speaks ? { first: 0, values } : null);
    }
    model.dispose();
  }

  if (readerPgs !== null) {
    const cfg = { ...config, rng: { seed: config.rng.seed + 1 } };
    const model = await provideDistributedModel(cfg, { pgCollection: readerPgs, device });
    const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection: readerPgs });
    const count = rows / replicas;
    const memory = new SampleBatches({
      count: count / size,
      microBatchSize: size,
      seqLength: SEQ,
      vocabSize: VOCABULARY,
    });
    const next = (): readonly MicroBatch[] => {
      const all = pages.share(null);
      const first = readerPgs.dp.rank * count;
      return memory.fill((k) => ({
        inputIds: Int32Array.from(all.subarray((first + k) * width, (first + k + 1) * width)),
      }));
    };
    const onStep = context.emit.bind(context);
    await train({ cfg, model, optimizer, scheduler, pgCollection: readerPgs, data: { next }, onStep });
    model.dispose();
  }
  pages.dispose();
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      ...{ nproc: undefined as number | undefined, 'train-iters': 12, 'ranks-per-gpu': 1 },
      ...{ 'writer-tp-size': 1, 'reader-tp-size': 1, 'reader-pp-size': 1 },
    });
    const config = qwen3TinyPretrainConfig({
      ...{ train_iters: o['train-iters'], seq_length: SEQ, global_batch_size: 24, micro_batch_size: 2, lr: 1e-3 },
    });
    config.model.vocab_size = VOCABULARY;
    config.dataset = { type: 'mock', seed: 0 };
    config.dist.ranks_per_gpu = o['ranks-per-gpu'];
    const options: Layouts = {
      writer: { tp: o['writer-tp-size'] },
      reader: { tp: o['reader-tp-size'], pp: o['reader-pp-size'] },
    };
    const nproc = processesToStart(o.nproc, o['writer-tp-size'] + o['reader-tp-size'] * o['reader-pp-size']);
    return runDistributed({ config, nproc, worker: import.meta.url, options });
  });
}
