import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { validateModelLayout } from '../../config/layout.js';
import { isAdapterParameter, type Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import { modelShape } from '../../families/model-shape.js';
import type { ModelConfig } from '../../config/schema.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { layOutParameters } from '../../model/stage/stage.js';
import { partSpec, type PartSpec } from '../../model/stage/stage-spec.js';
import type { Bucket } from '../../model/parameters/bucket.js';
import type { Checkpoint } from '../format/checkpoint.js';
import { HF_SUBFOLDER, isOptimizerTensor, TENSOR_KINDS } from '../format/checkpoint-format.js';
import { modelOfSizes } from '../hf/hf-files.js';
import { modelParameters } from '../../families/parameters.js';
import { saveOffline } from './offline-save.js';
import { wholeOf } from '../../model/parameters/rectangle.js';
import { planSave, shardFileName } from '../format/save-plan.js';
import { layOutShard, type ShardLayout, type StoredPiece } from '../format/shard-layout.js';

export interface TargetLayout {
  readonly tp: number;
  readonly pp: number;
  readonly dp: number;
  /** Chunks a stage. */
  readonly vpp: number;
}

/**
 * Writes a checkpoint again as a run of another layout would have: the same tensors, byte for byte, cut into other
 * files. Any layout can load any checkpoint; this is for a folder that is to be read often, or file by file.
 * @throws MbridgeError exit 3 for a layout that the model does not take, exit 7 for a damaged checkpoint
 */
export async function reshard(checkpoint: Checkpoint, root: string, target: TargetLayout): Promise<string> {
  const model = modelOfSizes(checkpoint.state.model, {
    tensor_model_parallel_size: target.tp,
    pipeline_model_parallel_size: target.pp,
    virtual_pipeline_model_parallel_size: target.vpp > 1 ? target.vpp : null,
    seq_length: checkpoint.state.config?.model.seq_length ?? 4096,
  });
  validateModelLayout(model);
  checkpoint.check(modelShape({ model }), ['language', 'value']);
  const files = new Map<string, Uint8Array>();
  for (const name of Object.keys(checkpoint.commit.files).filter((file) => file.startsWith(`${HF_SUBFOLDER}/`))) {
    files.set(name, await readFile(join(checkpoint.folder, name)));
  }
  const { tp, pp, dp, vpp } = target;
  const layout = { world_size: tp * dp * pp, tp, cp: 1, dp, pp, vpp, ep: 1 };
  return saveOffline({
    root,
    state: { ...checkpoint.state, layout },
    shards: shardsOf(checkpoint, model, target),
    bytesOf: ({ tensor, area }) => checkpoint.bytesOf(tensor, area),
    files,
  });
}

function* shardsOf(checkpoint: Checkpoint, model: ModelConfig, { tp, pp, dp }: TargetLayout): Generator<ShardLayout> {
  const kinds = checkpoint.hasOptimizer ? TENSOR_KINDS : (['weight'] as const);
  const dtypeOf = (tensor: string): StoredPiece['dtype'] => checkpoint.tensor(tensor).dtype;
  // The grid's order: tp varies fastest, then dp, then pp.
  for (let rank = 0; rank < tp * dp * pp; rank++) {
    const place = {
      tp: { size: tp, rank: rank % tp },
      dpCp: { size: dp, rank: Math.floor(rank / tp) % dp },
      pp: { size: pp, rank: Math.floor(rank / (tp * dp)) },
    };
    const buckets = plannedBuckets(model, place, checkpoint.head, checkpoint.adapters);
    yield* planSave({ buckets, tp: place.tp, rank, kinds, dtypeOf, has: (tensor) => checkpoint.has(tensor) });
  }
  const known = new Set(modelParameters(modelShape({ model }), checkpoint.head).map(({ name }) => name));
  const others = Object.entries(checkpoint.index.tensors).filter(
    ([name]) => !known.has(name) && !isOptimizerTensor(name) && !isAdapterParameter(name),
  );
  if (others.length === 0) return;
  const pieces = others.map(([tensor, { dtype, shape }]) => ({ tensor, dtype, shape, area: wholeOf(shape) }));
  yield layOutShard(shardFileName('extra', 0), pieces);
}

/** A rank's buckets as a run would lay them out; no memory is taken. */
export function plannedBuckets(
  model: ModelConfig,
  place: PartSpec['place'],
  head: HeadKind = 'language',
  adapters: Adapters | null = null,
): readonly Bucket[] {
  const layOut = { dtype: 'f32', trainable: false, frozen: [], gradients: 'whole', gradientType: 'f32' } as const;
  const spec = partSpec(model, place, { ...layOut, head, adapters });
  return layOutParameters(new MemoryPlan(), spec, null).buffer.buckets;
}
