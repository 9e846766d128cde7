import type { DeviceKind } from '../../config/layout.js';
import { keepsDocumentsApart } from '../../config/documents.js';
import { resolvePrecision } from '../../config/layout.js';
import type { ModelConfig, RunConfig } from '../../config/schema.js';
import type { ActDType } from '../../engine/dtype.js';
import { adaptersOf, type Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import { tokenFlops } from '../../families/flops.js';
import { modelShape, type ModelShape } from '../../families/model-shape.js';
import type { Fp8 } from '../blocks/fp8-product.js';
import type { Recompute, RecomputeModule } from '../blocks/stage-env.js';
import type { GenerationSizes } from '../decode/kv-cache.js';
import type { StateTypes } from '../optim/optimizer-state.js';
import type { CpCommType } from '../parallel/context-parallel.js';
import type { Place } from '../parameters/parameter.js';
import { balanceStages, interleavedStageLayers, stageLayers, type StageLayers } from '../pipeline/stages.js';
import type { StageParts } from './stage-weights.js';

const DTYPE_OF = { fp32: 'f32', bf16: 'bf16' } as const;

/** Where a rank stands in its model's grid. Groups are places, so a ProcessGroupCollection is one too. */
export interface ModelPlace {
  readonly tp: Place;
  readonly cp: Place;
  readonly pp: Place;
  readonly dp: Place;
  readonly dpCp: Place;
}

/** Which parameters a rank holds, and how they are laid out. */
export interface PartSpec {
  readonly shape: ModelShape;
  readonly place: Omit<ModelPlace, 'dp' | 'cp'>;
  /** The decoder layers here, by chunk. */
  readonly layers: readonly StageLayers[];
  readonly parts: StageParts;
  readonly dtype: ActDType;
  readonly sequenceParallel: boolean;
  /** Whether a gradient is kept whole, or as this rank's shard with the rest lent. */
  readonly gradients: 'whole' | 'shard';
  /** Of the gradients that products alone add to; the others are float32. */
  readonly gradientType: ActDType;
  /**
   * Which buckets have gradients and optimizer state: all, none, or those whose name it matches (`embedding`,
   * `layer.<i>`, `output`, `value`, `norms`, `head-norms`, `biases`, `adapters`, `adapters-shared`).
   */
  readonly trainable: boolean | RegExp;
  /** Names of parameters that have neither, whatever their bucket; `*` stands for any letters. */
  readonly frozen: readonly string[];
  /** Adapters beside the products of the layers, which alone are trained then; null for none. */
  readonly adapters: Adapters | null;
  /** `value`: one number a token, from the bucket `value`, in place of logits: a value or reward model. */
  readonly head: HeadKind;
}

/**
 * All that decides a stage: data, from which it is built with or without a device. A spec with other sizes is a spread of
 * this one: `{ ...spec, batch: 8, microBatches: 1 }`.
 */
export interface StageSpec extends PartSpec {
  readonly place: ModelPlace;
  /** Chunks a pipeline rank. */
  readonly chunks: number;
  /** Samples of a micro-batch, and tokens of a sample. */
  readonly batch: number;
  readonly seq: number;
  /** Of a step, on this replica; 0 for a model that only generates. */
  readonly microBatches: number;
  /**
   * Whether attention stays inside the documents of a sample: where a batch's `positions` begin again at 0, one begins. False
   * reads a sample as one document, whatever its positions.
   */
  readonly documents: boolean;
  /** What it generates, if it does. */
  readonly generation?: GenerationSizes;
  readonly recompute: Recompute;
  /** Under `selective`. */
  readonly recomputeModules: readonly RecomputeModule[];
  readonly deterministic: boolean;
  /** Which products of whole sequences are in e4m3; null for none. On a CPU it is an emulation, for tests. */
  readonly fp8: Fp8 | null;
  /** The most tokens whose logits are there at once, where the loss takes a micro-batch in parts. */
  readonly lossChunkTokens: number;
  /** How keys and values come to the ranks of a sequence. */
  readonly cpCommType: CpCommType;
  /** Whether a token gets the same bits whatever it is computed with: sampled log-probabilities are those of training. */
  readonly batchInvariant: boolean;
  /** Whether optimizer state is sharded over the replicas, and its types. */
  readonly state: { readonly sharded: boolean; readonly types: StateTypes };
}

export interface SpecOptions {
  readonly device: DeviceKind;
  /** True by default. */
  readonly trainable?: boolean | RegExp;
  /** What the model generates; nothing by default. */
  readonly generation?: GenerationSizes;
  /** Whether it does nothing else: frozen, without memory for passes over whole sequences. */
  readonly onlyGenerates?: boolean;
  /** `language` by default. */
  readonly head?: HeadKind;
  /** In place of what the configuration says: for tests on the CPU, which `mixed_precision` refuses. */
  readonly fp8?: Fp8 | null;
}

/** The spec of one rank of a configuration. The parallel sizes are those of `place`. Pure. */
export function stageSpec(
  cfg: RunConfig,
  place: ModelPlace,
  { device, trainable = true, head = 'language', generation, onlyGenerates = false, fp8 = fp8Of(cfg) }: SpecOptions,
): StageSpec {
  const { model, train, ddp, optimizer } = cfg;
  const strategy = ddp.data_parallel_sharding_strategy;
  const dtype = resolvePrecision(cfg, device) === 'fp32' ? 'f32' : 'bf16';
  const spec: StageSpec = {
    ...partSpec(model, place, {
      ...{ dtype, trainable, head, frozen: optimizer.frozen_parameters, adapters: adaptersOf(cfg.peft) },
      gradients: strategy === 'optim_grads' ? 'shard' : 'whole',
      gradientType: DTYPE_OF[ddp.grads_dtype],
    }),
    place,
    chunks: model.virtual_pipeline_model_parallel_size ?? 1,
    batch: train.micro_batch_size,
    seq: model.seq_length,
    microBatches: train.global_batch_size / (train.micro_batch_size * place.dp.size),
    documents: keepsDocumentsApart(cfg),
    recompute: model.recompute_granularity,
    recomputeModules: model.recompute_modules,
    deterministic: model.deterministic,
    fp8,
    lossChunkTokens: model.loss_chunk_tokens,
    cpCommType: model.cp_comm_type,
    batchInvariant: model.batch_invariant,
    state: {
      sharded: optimizer.use_distributed_optimizer && strategy !== 'no_shard',
      types: {
        main: DTYPE_OF[optimizer.main_params_dtype],
        m: DTYPE_OF[optimizer.exp_avg_dtype],
        v: DTYPE_OF[optimizer.exp_avg_sq_dtype],
      },
    },
    ...(generation === undefined ? {} : { generation }),
  };
  // It has no passes over whole sequences.
  const only = { batch: 1, seq: place.tp.size, microBatches: 0, fp8: null, trainable: false };
  return onlyGenerates ? { ...spec, ...only } : spec;
}

function fp8Of({ mixed_precision: precision, model }: RunConfig): Fp8 | null {
  if (precision !== 'fp8_mixed') return null;
  return { wgrad: model.fp8_wgrad, bf16Ends: model.fp8_first_last_layers_bf16 };
}

/** Whether a rank's totals of loss and tokens count: the tp ranks have the same. */
export function countsLoss(tp: Place): boolean {
  return tp.rank === 0;
}

/** The part of {@link stageSpec} that the parameters depend on. */
export function partSpec(
  model: ModelConfig,
  place: PartSpec['place'],
  options: Pick<PartSpec, 'dtype' | 'trainable' | 'frozen' | 'adapters' | 'gradients' | 'gradientType' | 'head'>,
): PartSpec {
  const shape = modelShape({ model });
  const layers = assignLayers(model, shape, place.pp.size)
    .filter((part) => part.rank === place.pp.rank)
    .sort((a, b) => a.chunk - b.chunk);
  const parts = {
    layers: layers.flatMap((part) => Array.from({ length: part.layers }, (_, i) => part.firstLayer + i)),
    embedding: place.pp.rank === 0,
    head: place.pp.rank === place.pp.size - 1,
  };
  const sequenceParallel = model.sequence_parallel && place.tp.size > 1;
  return { ...options, shape, place, layers, parts, sequenceParallel };
}

/** Layers of every chunk of every one of `stages` pipeline ranks. */
export function assignLayers(model: ModelConfig, shape: ModelShape, stages: number): StageLayers[] {
  const vpp = model.virtual_pipeline_model_parallel_size ?? 1;
  if (vpp > 1) return interleavedStageLayers(shape.numLayers, stages, vpp);
  const { layer, head } = tokenFlops(shape, model.seq_length);
  return stageLayers(
    balanceStages({
      numLayers: shape.numLayers,
      stages,
      layerFlops: layer,
      headFlops: head,
      embeddingFlops: 0,
      first: model.num_layers_in_first_pipeline_stage ?? undefined,
      last: model.num_layers_in_last_pipeline_stage ?? undefined,
    }),
  );
}
