import { resolvePrecision, validateLayout, type DeviceKind, type Precision, type RunLayout } from '../config/layout.js';
import { sampleSizes } from './samples.js';
import { modelShape } from '../families/model-shape.js';
import type { RunConfig } from '../config/schema.js';
import { planPlacement } from './placement-plan.js';
import { provePlacement } from './placement-proof.js';
import type { ProvideModelOptions } from './setup.js';
import { runtimeAllowances } from './runtime-allowance.js';
import { adapterCount, adaptersOf } from '../families/adapters.js';
import { parameterCount } from '../families/parameters.js';
import { DTYPES } from '../engine/dtype.js';
import type { RegionName } from '../engine/memory-plan.js';
import { groupRanks, trainingFields } from '../groups/grid/group-fields.js';
import { HyperCommGrid } from '../groups/grid/hyper-comm-grid.js';
import { stepFlops, tokenFlops } from '../families/flops.js';
import type { Bucket } from '../model/parameters/bucket.js';
import { localSize } from '../model/parameters/parameter.js';
import { stageSpec, type StageSpec } from '../model/stage/stage-spec.js';
import { buildStage, stageSchedules, type Stage, type StageSchedules } from '../model/stage/stage.js';

export interface RankPlan {
  readonly rank: number;
  readonly coordinates: { readonly tp: number; readonly cp: number; readonly dp: number; readonly pp: number };
  /** Decoder layers here, by chunk, ends included: [[first, last], ...]. */
  readonly layers: readonly (readonly [number, number])[];
  readonly embedding: boolean;
  readonly head: boolean;
  /** Parameters held here (shards counted as such), and those of them that are trained. */
  readonly parameters: number;
  readonly trainedParameters: number;
  readonly bytes: Readonly<Record<RegionName, number>>;
  /** Of the arena: the sum of `bytes`. */
  readonly totalBytes: number;
  /** Allowance for libraries and communicators, which a GPU holds beside the arena. */
  readonly runtimeBytes: number;
  /** Host memory in which checkpoints are staged. */
  readonly hostBytes: number;
  /** Host memory of the copies from which a restart goes on. */
  readonly copyBytes: number;
  /** Model FLOPs of this rank in an update, by the formula that throughput is reported with. */
  readonly flopsPerStep: number;
}

/** Everything about a run that can be known without a device. */
export interface RunPlan {
  readonly layout: RunLayout;
  readonly device: DeviceKind;
  readonly precision: Precision;
  /** Of the model and its adapters, each counted once, and those of them that are trained. */
  readonly parameters: number;
  readonly trainedParameters: number;
  readonly flopsPerStep: number;
  readonly tokensPerStep: number;
  /** The groups that training makes, by field. */
  readonly groups: Readonly<Record<string, readonly (readonly number[])[]>>;
  readonly ranks: readonly RankPlan[];
}

/** What a program asks of a model beside its configuration, as it builds it. */
export type PlannedModel = Pick<ProvideModelOptions, 'trainable' | 'head' | 'loss' | 'generation' | 'onlyGenerates'> & {
  /** Instead of making the schedules of each plan anew, for who plans many. */
  readonly schedulesOf?: (spec: StageSpec) => StageSchedules;
};

/**
 * Plans a run: layout, groups, and for every rank its layers, memory by region and work. The memory is that of the
 * very objects that training allocates from. Pure.
 * @param options those of provideDistributedModel; `trainable: false` for a model that is only evaluated
 * @throws MbridgeError exit 3 where the configuration does not fit the number of ranks
 */
export function planRun(cfg: RunConfig, worldSize: number, device: DeviceKind, options: PlannedModel = {}): RunPlan {
  const layout = validateLayout(cfg, worldSize, { device });
  const { tp, cp, dp, pp } = layout;
  const grid = new HyperCommGrid({
    shape: [tp, cp, dp, pp],
    dimNames: ['tp', 'cp', 'dp', 'pp'],
    worldSize,
    backend: 'nccl',
  });
  const shape = modelShape(cfg);
  const adapters = adaptersOf(cfg.peft);
  const samples = options.trainable === false ? undefined : sampleSizes(cfg, dp);
  const { global_batch_size: batch } = cfg.train;
  const { seq_length: seq } = cfg.model;
  const all = groupRanks(grid);
  const tied = cfg.model.tie_word_embeddings;
  const groups = Object.fromEntries(trainingFields({ tied }).map((field) => [field, all[field]]));
  const allowances = runtimeAllowances(device, worldSize, groups);
  // Ranks that differ only in cp or dp have the same plan; those of tp too, where it cuts the vocabulary into equal parts.
  const equalTp = shape.vocabSize % tp === 0;
  const stages = new Map<string, StagePlan>();
  let schedules: StageSchedules | undefined;
  let trainedParameters = 0;
  const ranks = Array.from({ length: worldSize }, (_, rank): RankPlan => {
    const at = (dim: string): number => grid.coordinates(rank)[dim] ?? 0;
    const coordinates = { tp: at('tp'), cp: at('cp'), dp: at('dp'), pp: at('pp') };
    const tpRank = equalTp ? 0 : coordinates.tp;
    const key = `${tpRank} ${coordinates.pp}`;
    let stage = stages.get(key);
    if (stage === undefined) {
      const place = {
        tp: { size: tp, rank: tpRank },
        cp: { size: cp, rank: 0 },
        pp: { size: pp, rank: coordinates.pp },
        dp: { size: dp, rank: 0 },
        dpCp: { size: dp * cp, rank: 0 },
      };
      const { schedulesOf = stageSchedules } = options;
      const spec = stageSpec(cfg, place, { ...(samples && { generation: samples }), ...options, device });
      if (stages.size === 0) provePlacement(planPlacement(cfg.model, spec, grid));
      schedules ??= schedulesOf(spec);
      const built = buildStage(spec, null, options.loss, schedules);
      const like = equalTp ? Array.from({ length: tp }, (_, i) => i) : [tpRank];
      trainedParameters += like.reduce((sum, each) => sum + ownTrained(built, each === 0), 0);
      stage = describeStage(built, layout, cfg);
      stages.set(key, stage);
    }
    return { rank, coordinates, ...stage, runtimeBytes: allowances[rank] ?? 0 };
  });
  return {
    layout,
    device,
    precision: resolvePrecision(cfg, device),
    parameters: parameterCount(shape) + (adapters === null ? 0 : adapterCount(shape, adapters)),
    trainedParameters,
    flopsPerStep: stepFlops(shape, seq, batch, { adapters }),
    tokensPerStep: batch * seq,
    groups,
    ranks,
  };
}

/** Written in turn, so that one is always whole. */
const COPIES = 2;

type StagePlan = Omit<RankPlan, 'rank' | 'coordinates' | 'runtimeBytes'>;

function describeStage(stage: Stage, layout: RunLayout, cfg: RunConfig): StagePlan {
  const { spec, buffer, plan, shape } = stage;
  const { layers, parts } = spec;
  const { layer, head } = tokenFlops(shape, cfg.model.seq_length, spec.adapters);
  const here = layers.reduce((sum, part) => sum + part.layers, 0) * layer + (parts.head ? head : 0);
  const { non_persistent_save_interval: copies } = cfg.checkpoint;
  const tokens = (cfg.train.global_batch_size * cfg.model.seq_length) / (layout.dp * layout.cp);
  return {
    layers: layers.map((part) => [part.firstLayer, part.firstLayer + part.layers - 1] as const),
    embedding: parts.embedding,
    head: parts.head,
    parameters: buffer.parameterCount,
    trainedParameters: elementsOf(buffer.buckets.filter(({ trainable }) => trainable)),
    bytes: plan.byRegion(),
    totalBytes: plan.totalBytes,
    hostBytes: cfg.checkpoint.save === null || stage.optimizer === null ? 0 : savedBytes(stage),
    copyBytes: copies === null || stage.optimizer === null ? 0 : COPIES * savedBytes(stage),
    flopsPerStep: (here * tokens) / layout.tp,
  };
}

/** Of what a rank owns, main parameter and two moments, or what is frozen as it is; headers of files are not counted. */
function savedBytes({ buffer, spec }: Stage): number {
  const { main, m, v } = spec.state.types;
  const trained = [main, m, v].reduce((sum, type) => sum + DTYPES[type].bytes, 0);
  const owned = buffer.buckets.filter(({ kind }) => kind.tied !== 'copy');
  const each = ({ trainable, params }: Bucket): number => (trainable ? trained : params.bytes / params.size);
  return owned.reduce((sum, bucket) => sum + each(bucket) * bucket.shardSize, 0);
}

/** Trained parameters that no other stage, and no other tp rank, counts. @param first whether it is of the first tp rank */
function ownTrained({ buffer }: Stage, first: boolean): number {
  return elementsOf(
    buffer.buckets.filter(({ trainable, kind }) => trainable && kind.tied !== 'copy' && (!kind.tpReplicated || first)),
  );
}

function elementsOf(buckets: readonly Bucket[]): number {
  return buckets.flatMap(({ entries }) => entries).reduce((sum, { spec }) => sum + localSize(spec), 0);
}
