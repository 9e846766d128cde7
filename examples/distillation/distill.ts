/**
 * Distillation: a student learns what a larger model says of every token. Each model spans all ranks in a layout of its
 * own; what the teacher says goes to the student as rows of a table. The teacher here learns in the same job before; one
 * from elsewhere is built with `checkpoint.pretrained_checkpoint`, and `trainable: false`.
 *
 * With k the loss ends a little below 0: what the teacher holds of tokens that are not among them has no term. With
 * `--k 0` the student learns from all logits.
 *
 *   node dist/examples/distillation/distill.js --nproc 2 --teacher-tp 2 --pp-size 2
 *   node dist/examples/distillation/distill.js --nproc 4 --teacher-tp 2 --tp-size 2 --pp-size 2 --k 0
 */
import {
  CommRuntime,
  distillationLoss,
  FullDistillationLoss,
  HyperCommGrid,
  isMain,
  modelShape,
  NON_MEMBER,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  RowTable,
  runDistributed,
  runMain,
  setupOptimizer,
  setupRunData,
  train,
  validateLayout,
  WeightTransfer,
  type Groups,
  type Loss,
  type MicroBatch,
  type RunConfig,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

interface Options {
  /** The teacher's configuration; the run's is the student's. */
  readonly teacher: RunConfig;
  /** Tokens that the teacher names after each; 0: the whole vocabulary. */
  readonly k: number;
  readonly temperature: number;
}

export const runWorker: RunWorker = async (context) => {
  const { config, rank, worldSize, store } = context;
  const { teacher: teacherConfig, k, temperature } = context.options as Options;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: config.dist.timeout_s });

  /** A model over all ranks, in the layout of its configuration. */
  const build = async (cfg: RunConfig, name: string, loss?: Loss) => {
    const { tp, pp, dp } = validateLayout(cfg, worldSize, { device: device.kind });
    const shape = [tp, 1, dp, pp];
    const grid = new HyperCommGrid({ shape, dimNames: ['tp', 'cp', 'dp', 'pp'], worldSize, backend: 'nccl', name });
    const pgCollection: Groups = await ProcessGroupCollection.fromGrid(grid, runtime);
    const model = await provideDistributedModel(cfg, { pgCollection, device, ...(loss && { loss }) });
    const data = await setupRunData(cfg, pgCollection);
    return { cfg, model, data, pgCollection, ...setupOptimizer(cfg, model, { pgCollection }) };
  };
  const full = k === 0 ? new FullDistillationLoss({ teacher: modelShape(teacherConfig), temperature }) : null;
  const teacher = await build(teacherConfig, 'teacher');
  const student = await build(config, 'student', full ?? distillationLoss({ k, temperature, normalize: 'vocabulary' }));
  const all = Array.from({ length: worldSize }, (_, other) => other);
  const world = await runtime.createGroups('world', [all]);
  if (world === NON_MEMBER) throw new Error('all ranks are in the world');
  runtime.watch();

  await train({
    ...teacher,
    onStep: ({ step, loss }) => {
      if (step === teacherConfig.train.train_iters) context.emit({ type: 'teacher', step, loss });
    },
  });
  if (full !== null) {
    const transfer = await WeightTransfer.create({
      group: world,
      store,
      name: 'head',
      source: teacher.model,
      target: full,
    });
    transfer.run();
    transfer.dispose();
  }

  const { global_batch_size: rows, micro_batch_size: size } = config.train;
  const width = config.model.seq_length * (full === null ? k : teacherConfig.model.hidden_size);
  const table = new RowTable(world, { rows, width });
  /** Brings all ranks what the last stage of each of the teacher's replicas has of its rows. */
  const share = (found: readonly ArrayLike<number>[] | null | undefined): Float32Array => {
    const { dp } = teacher.pgCollection;
    const values = teacher.model.speaks ? (found ?? []).flatMap((of) => Array.from(of)) : null;
    return table.share(values && { first: (dp.rank * rows) / dp.size, values });
  };
  /** What the teacher says of the batch of an update, by field of the student's micro-batches. */
  const ask = (step: number): Record<string, Int32Array | Float32Array> => {
    const batches = teacher.data.next(step);
    if (full !== null) return { teacher_hidden: share(teacher.model.hiddenStates(batches)) };
    const top = teacher.model.topLogprobs(batches, { k, temperature });
    const ids = share(top?.map((of) => of.ids));
    return { teacher_ids: Int32Array.from(ids), teacher_logprobs: share(top?.map(({ logprobs }) => logprobs)) };
  };
  const next = (step: number): MicroBatch[] => {
    const { dp } = student.pgCollection;
    const fields = Object.entries(ask(step));
    return student.data.next(step).map((batch, m) => {
      const first = (dp.rank * rows) / dp.size + m * size;
      const own = fields.map(([name, values]) => [name, values.slice(first * width, (first + size) * width)]);
      return { ...batch, ...(Object.fromEntries(own) as Record<string, Float32Array>) };
    });
  };
  const onStep = ({ step, loss }: { step: number; loss: number | null }): void => {
    context.emit({ type: 'student', step, loss });
  };
  await train({ ...student, data: { next }, onStep });

  table.dispose();
  for (const { data, model } of [teacher, student]) {
    data.close();
    model.dispose();
  }
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      ...{ nproc: undefined as number | undefined, 'tp-size': 1, 'pp-size': 1, 'train-iters': 40 },
      ...{ 'teacher-tp': 1, 'teacher-pp': 1, 'teacher-iters': 40, k: 16, temperature: 1 },
    });
    const configOf = (layers: number, tp: number, pp: number, iters: number): RunConfig => {
      const sizes = { tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp, num_hidden_layers: layers };
      return qwen3TinyPretrainConfig({ ...sizes, train_iters: iters, seq_length: 64, global_batch_size: 16 });
    };
    const teacher = configOf(4, o['teacher-tp'], o['teacher-pp'], o['teacher-iters']);
    const config = configOf(2, o['tp-size'], o['pp-size'], o['train-iters']);
    const least = Math.max(o['tp-size'] * o['pp-size'], o['teacher-tp'] * o['teacher-pp']);
    const options: Options = { teacher, k: o.k, temperature: o.temperature };
    return runDistributed({ config, nproc: processesToStart(o.nproc, least), worker: import.meta.url, options });
  });
}
