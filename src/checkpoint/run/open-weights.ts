import { join } from 'node:path';
import type { Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import type { ModelShape } from '../../families/model-shape.js';
import type { Device } from '../../engine/device.js';
import type { WeightSource } from '../../model/parameters/weight-source.js';
import { Checkpoint } from '../format/checkpoint.js';
import { COMMIT_FILE, LATEST_FILE, STATE_FILE } from '../format/checkpoint-format.js';
import { exists, findCheckpoint } from '../format/checkpoint-root.js';
import { CheckpointWeights } from './checkpoint-weights.js';
import { shapeOfState } from '../hf/hf-files.js';
import { requireSameAdapters, requireSameModel } from '../format/same-model.js';
import { HfWeights } from '../hf/hf-weights.js';

export interface ClosableWeights extends WeightSource {
  /** Of the model that they are of. */
  readonly head: HeadKind;
  readonly adapters: Adapters | null;
  close(): Promise<void>;
}

/**
 * Opens `checkpoint.pretrained_checkpoint`: a checkpoint, a folder of checkpoints, or a Hugging Face folder. A value model
 * takes the weights of a language model too, and one with adapters those of one without.
 * @param allowed `model` keys in which the weights' own model may differ from `shape`
 * @throws MbridgeError exit 7 for weights that are damaged or of another model
 */
export async function openWeights(
  path: string,
  shape: ModelShape,
  device: Device,
  allowed: readonly string[] = [],
  { head = 'language', adapters = null }: { readonly head?: HeadKind; readonly adapters?: Adapters | null } = {},
): Promise<ClosableWeights> {
  const ours = (await exists(join(path, COMMIT_FILE))) || (await exists(join(path, LATEST_FILE)));
  const folder = ours ? (await findCheckpoint(path)).folder : null;
  if (folder === null) return HfWeights.open(path, shape, device, allowed);
  const checkpoint = await Checkpoint.open(folder);
  requireSameModel(join(folder, STATE_FILE), shapeOfState(checkpoint.state), shape, allowed);
  if (checkpoint.adapters !== null) requireSameAdapters(join(folder, STATE_FILE), checkpoint.adapters, adapters);
  checkpoint.check(shape, head === 'value' ? ['language', 'value'] : ['language']);
  const weights = new CheckpointWeights(checkpoint, device);
  return {
    ...{ head: weights.head, adapters: checkpoint.adapters },
    fill: (spec, out) => weights.fill(spec, out),
    close: () => checkpoint.close(),
  };
}
