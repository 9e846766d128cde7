/**
 * One model over two grids of different tensor-parallel sizes: the first half of its layers on some ranks, the second half and
 * the loss on others. Activations go from one grid to the other, and their gradients come back, in the order of any pipeline.
 * The losses are those of one process.
 *
 *   node dist/examples/pipelines/one-model-two-grids.js --first-tp-size 2 --second-tp-size 1
 */
import {
  CommGroup,
  CommRuntime,
  HyperCommGrid,
  isMain,
  MbridgeError,
  NON_MEMBER,
  openDevice,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  setupOptimizer,
  setupRunData,
  train,
  type Groups,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from '../decentralized-pg/options.js';

/**
 * A pipeline whose stages have any number of ranks each: what the model takes for a group of one rank a stage. All ranks of a
 * stage hold the same activations (without sequence parallelism), so each is sent them by one of the other stage's.
 */
class UnevenPipeline extends CommGroup {
  readonly #bridge: CommGroup;
  readonly #stages: readonly (readonly number[])[];

  /** @param stages ranks of each stage, as ranks of the bridge */
  constructor(bridge: CommGroup, stages: readonly (readonly number[])[]) {
    const own = stages.findIndex((ranks) => ranks.includes(bridge.rank));
    super('uneven-pipeline', [...stages.keys()], own, bridge.device, null);
    this.#bridge = bridge;
    this.#stages = stages;
  }

  override exchange(...[transfers, ...stream]: Parameters<CommGroup['exchange']>): void {
    const own = this.#stages[this.rank]!;
    const index = own.indexOf(this.#bridge.rank);
    const all = transfers.flatMap(({ kind, peer: stage, tensor }) => {
      const others = this.#stages[stage]!;
      const senders = others.filter((_, i) => i === index % others.length);
      const receivers = others.filter((_, i) => i % own.length === index);
      return (kind === 'receive' ? senders : receivers).map((peer) => ({ kind, peer, tensor }));
    });
    this.#bridge.exchange(all, ...stream);
  }
}

export const runWorker: RunWorker = async (context) => {
  const { rank, worldSize, store, config: base, options } = context;
  const sizes = options as readonly number[];
  const [first = 1, second = 1] = sizes;
  if (worldSize !== first + second) {
    const found = `${worldSize} ranks for stages of ${first} and ${second}`;
    throw new MbridgeError('config', 'MB_EXAMPLE', found, { hint: 'leave --nproc out, or set it to the sum' });
  }
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: base.dist.timeout_s });
  const everyone = Array.from({ length: worldSize }, (_, i) => i);
  const stages = [everyone.slice(0, first), everyone.slice(first)];
  const stage = rank < first ? 0 : 1;
  const grid = new HyperCommGrid({
    shape: [sizes[stage]!, 1, 1, 1],
    dimNames: ['tp', 'cp', 'dp', 'pp'],
    rankOffset: stage === 0 ? 0 : first,
    ...{ worldSize, backend: 'nccl', name: `stage-${stage}` },
  });
  const own = await ProcessGroupCollection.fromGrid<CommGroup>(grid, runtime);
  const bridge = await runtime.createGroups('bridge', [everyone]);
  if (bridge === NON_MEMBER) throw new Error('every rank is in the bridge');
  runtime.watch();
  const { tp, cp, dp, dpCp } = own;
  const pgCollection: Groups = new ProcessGroupCollection<CommGroup>({
    ...{ tp, cp, dp, dpCp, pp: new UnevenPipeline(bridge, stages), embd: null },
    // A step's loss and gradient norm are sums over the ranks of both grids.
    intraDistOpt: bridge,
  });
  const cfg = { ...base, model: { ...base.model, sequence_parallel: false } };
  const model = await provideDistributedModel(cfg, { pgCollection, device });
  const { optimizer, scheduler } = setupOptimizer(cfg, model, { pgCollection });
  const data = await setupRunData(cfg, pgCollection);
  const onStep = context.emit.bind(context);
  await train({ cfg, model, optimizer, scheduler, data, pgCollection, onStep });
  data.close();
  model.dispose();
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const o = numberOptions({
      ...{ nproc: undefined as number | undefined, 'train-iters': 4, 'ranks-per-gpu': 1 },
      ...{ 'first-tp-size': 2, 'second-tp-size': 1 },
    });
    const config = qwen3TinyPretrainConfig({
      ...{ train_iters: o['train-iters'], seq_length: 64, global_batch_size: 12, micro_batch_size: 1 },
    });
    // A tied embedding would be cut in two ways.
    config.model.tie_word_embeddings = false;
    config.dist.ranks_per_gpu = o['ranks-per-gpu'];
    const sizes = [o['first-tp-size'], o['second-tp-size']];
    const nproc = processesToStart(o.nproc, sizes[0]! + sizes[1]!);
    return runDistributed({ config, nproc, worker: import.meta.url, options: sizes });
  });
}
