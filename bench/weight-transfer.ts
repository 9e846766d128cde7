/**
 * Weights of a model of 109 MB from one layout into another, in memory, between ranks that are threads of this process on the CPU.
 *
 *   node dist/bench/weight-transfer.js [--rounds 25]
 */
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import {
  HyperCommGrid,
  ProcessGroupCollection,
  provideDistributedModel,
  qwen3TinyPretrainConfig,
  WeightTransfer,
  type CommGroup,
  type DistributedModel,
} from '../src/index.js';
import type { RankContext } from '../src/testing/rank-context.js';
import { runRanks } from '../src/testing/run-ranks.js';
import { quantile } from './steps.js';

interface Layout {
  readonly tp: number;
  readonly pp: number;
}

interface Measured {
  /** Of the source, on this rank. */
  readonly bytes: number;
  readonly sent: number;
  readonly walls: readonly number[];
  /** Of the whole process, so of all ranks. */
  readonly cpus: readonly number[];
}

const [SOURCE, TARGET]: [Layout, Layout] = [
  { tp: 2, pp: 2 },
  { tp: 4, pp: 1 },
];
const RANKS = 4;

export async function runRank(context: RankContext<{ rounds: number }>): Promise<Measured> {
  const { device, runtime, worldSize, store, options } = context;
  const config = qwen3TinyPretrainConfig({
    ...{ seq_length: 64, global_batch_size: 2, micro_batch_size: 1 },
    ...{ hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8, num_key_value_heads: 4, vocab_size: 5120 },
  });
  const join = async ({ tp, pp }: Layout, seed: number): Promise<DistributedModel> => {
    const shape = [tp, 1, worldSize / tp / pp, pp];
    const grid = new HyperCommGrid({
      shape,
      dimNames: ['tp', 'cp', 'dp', 'pp'],
      worldSize,
      backend: 'nccl',
      name: `tp ${tp}`,
    });
    const pgCollection = await ProcessGroupCollection.fromGrid<CommGroup>(grid, runtime);
    const layout = { tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp };
    const placed = { ...config, rng: { ...config.rng, seed }, model: { ...config.model, ...layout } };
    return await provideDistributedModel(placed, { pgCollection, device, trainable: false });
  };
  const group = (await runtime.createGroups('all', [[...Array(worldSize).keys()]])) as CommGroup;
  const [source, target] = [await join(SOURCE, 1), await join(TARGET, 2)];
  const transfer = await WeightTransfer.create({ group, store, name: 'bench', source, target });
  const cpuMs = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const [walls, cpus]: [number[], number[]] = [[], []];
  for (let round = 0; round < options.rounds; round++) {
    group.barrier();
    const [begun, used] = [performance.now(), cpuMs()];
    transfer.run();
    group.barrier();
    walls.push(performance.now() - begun);
    cpus.push(cpuMs() - used);
  }
  return { bytes: source.stage.plan.byRegion().parameters, sent: transfer.bytes.sent, walls, cpus };
}

// The ranks load this file too.
if (isMainThread) {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '25' } } });
  const options = { rounds: Number(values.rounds) };
  const ranks = await runRanks<Measured>(RANKS, import.meta.url, { options, timeoutSeconds: 300 });
  const sum = (of: (rank: Measured) => number): string =>
    (ranks.reduce((all, rank) => all + of(rank), 0) / 1e6).toFixed(1);
  const [first] = ranks as [Measured];
  const range = (times: readonly number[]): string =>
    [0, 0.5, 1].map((part) => quantile(times, part).toFixed(1)).join(', ');
  console.log(
    `tp 2 x pp 2 to tp 4: ${sum((rank) => rank.bytes)} MB of weights, ${sum((rank) => rank.sent)} MB between ranks`,
  );
  console.log(
    `ms of ${options.rounds}, least, median, most: ${range(first.walls)}; of CPU, all ranks: ${range(first.cpus)}`,
  );
}
