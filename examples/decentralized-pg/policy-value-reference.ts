/**
 * Several models with layouts of their own in one job, as reinforcement learning needs them. On four ranks:
 *
 *   policy     trained,  tp 2 on ranks 0 and 1
 *   reference  frozen,   pp 2 on ranks 2 and 3
 *   value      trained,  dp 4 on all ranks, so that every rank is in two grids
 *
 * The reference sends its loss to the policy over a group made for nothing else. No group is global, so no collective
 * can reach a rank that it does not concern.
 *
 *   node dist/examples/decentralized-pg/policy-value-reference.js --nproc 4 --train-iters 4
 */
import {
  CommRuntime,
  HyperCommGrid,
  MbridgeError,
  NON_MEMBER,
  ProcessGroupCollection,
  MemoryPlan,
  isMain,
  openDevice,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  runDistributed,
  runMain,
  setupDataIterators,
  setupOptimizer,
  type DataIterator,
  type DistributedModel,
  type DistributedOptimizer,
  type Groups,
  type RunWorker,
} from '../../src/index.js';
import { numberOptions, processesToStart } from './options.js';

interface Layout {
  name: string;
  tp: number;
  pp: number;
  dp: number;
  firstRank: number;
  trainable: boolean;
}

interface Member {
  pgs: Groups;
  model: DistributedModel;
  optimizer: DistributedOptimizer | null;
  data: DataIterator;
}

const LAYOUTS: readonly Layout[] = [
  { name: 'policy', tp: 2, pp: 1, dp: 1, firstRank: 0, trainable: true },
  { name: 'reference', tp: 1, pp: 2, dp: 1, firstRank: 2, trainable: false },
  { name: 'value', tp: 1, pp: 1, dp: 4, firstRank: 0, trainable: true },
];

export const runWorker: RunWorker = async (context) => {
  const { rank, worldSize, config: base } = context;
  if (worldSize !== 4) {
    throw new MbridgeError('config', 'MB_EXAMPLE', `this example is laid out for 4 ranks, got ${worldSize}`);
  }
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store: context.store, timeoutSeconds: base.dist.timeout_s });

  /**
   * This rank's part of a model, or null where it has none. All have one shape, and the same first weights; how a model is
   * spread is what its groups say.
   */
  const join = async ({ name, tp, pp, dp, firstRank, trainable }: Layout): Promise<Member | null> => {
    const grid = new HyperCommGrid({
      shape: [tp, 1, dp, pp],
      dimNames: ['tp', 'cp', 'dp', 'pp'],
      rankOffset: firstRank,
      worldSize,
      backend: 'nccl',
      name,
    });
    if (!grid.isRankInGrid(rank)) return null;
    const pgs: Groups = await ProcessGroupCollection.fromGrid(grid, runtime);
    const model = await provideDistributedModel(base, { pgCollection: pgs, device, trainable });
    const optimizer = trainable ? setupOptimizer(base, model, { pgCollection: pgs }).optimizer : null;
    const data = await setupDataIterators(base, {
      dpGroup: pgs.dp,
      vocabSize: base.model.vocab_size,
      seqLength: base.model.seq_length,
      globalBatchSize: base.train.global_batch_size,
      microBatchSize: base.train.micro_batch_size,
    });
    return { pgs, model, optimizer, data };
  };

  const [policy, reference, value] = [await join(LAYOUTS[0]!), await join(LAYOUTS[1]!), await join(LAYOUTS[2]!)];
  // From the reference's last stage (rank 3) to the policy's ranks.
  const bridge = await runtime.createGroups('reference-to-policy', [[0, 1, 3]]);
  runtime.watch(); // a group that fails or hangs is aborted, not waited for
  const memory = new MemoryPlan();
  const referenceLoss = memory.tensor('communication', [2], 'f32');
  memory.commit(device);

  for (let step = 1; step <= base.train.train_iters; step++) {
    if (reference !== null) {
      reference.model.evaluate(reference.data.next(step));
      const { lossAndTokens } = reference.model;
      if (lossAndTokens !== null) device.copy(lossAndTokens, referenceLoss);
    }
    if (bridge !== NON_MEMBER) bridge.broadcast(referenceLoss, 2);
    for (const member of [policy, value]) {
      if (member === null || member.optimizer === null) continue;
      member.model.forwardBackward(member.data.next(step), { hooks: member.optimizer.hooks });
      member.optimizer.step();
    }
    const own = policy?.model.readLoss();
    const mean = (sums: ArrayLike<number>): number => (sums[0] ?? NaN) / (sums[1] ?? NaN);
    if (rank === 0 && own) {
      const sums = new Float32Array(2);
      device.read(referenceLoss, sums);
      context.emit({ type: 'losses', step, policy: own.lossSum / own.tokens, reference: mean(sums) });
    }
  }

  for (const member of [policy, reference, value]) {
    member?.data.close();
    member?.model.dispose();
  }
  memory.release();
  runtime.destroyAll();
  device.close();
};

if (isMain(import.meta.url)) {
  process.exitCode = await runMain(() => {
    const options = numberOptions({ nproc: undefined as number | undefined, 'train-iters': 4, 'ranks-per-gpu': 1 });
    const nproc = processesToStart(options.nproc, 4);
    const config = qwen3TinyPretrainConfig({
      train_iters: options['train-iters'],
      seq_length: 64,
      sequence_parallel: true,
    });
    config.dist.ranks_per_gpu = options['ranks-per-gpu'];
    return runDistributed({ config, nproc, worker: import.meta.url });
  });
}
