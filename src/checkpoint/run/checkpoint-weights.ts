import { MbridgeError } from '../../base/errors.js';
import type { Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import type { Device } from '../../engine/device.js';
import type { DType } from '../../engine/dtype.js';
import { STATE } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { ParameterSpec } from '../../model/parameters/parameter.js';
import type { WeightSource } from '../../model/parameters/weight-source.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import { float32ToBfloat16 } from '../files/safetensors-convert.js';
import { MOMENTS, TENSOR_KINDS, tensorName, type TensorKind } from '../format/checkpoint-format.js';
import type { Checkpoint } from '../format/checkpoint.js';
import { areaOf, type Rectangle } from '../../model/parameters/rectangle.js';
import { bucketPieces } from '../../model/parameters/bucket-pieces.js';
import { stateTensor } from './state-snapshot.js';

/** Elements that go through the host at once. */
const CHUNK_ELEMENTS = 16 << 20;

/** Weights of a checkpoint: each rank reads the rectangles that it holds. */
export class CheckpointWeights implements WeightSource {
  readonly head: HeadKind;
  readonly adapters: Adapters | null;
  readonly #uploads: Uploads;

  constructor(checkpoint: Checkpoint, device: Device) {
    this.head = checkpoint.head;
    this.adapters = checkpoint.adapters;
    this.#uploads = new Uploads(checkpoint, device);
  }

  async fill(spec: ParameterSpec, out: Tensor): Promise<void> {
    await this.#uploads.upload('weight', spec.name, spec, out);
  }
}

/**
 * Sets the optimizer's moments and counters as they were saved. The main parameters come with the weights.
 * @param optimizer as it is initialized
 * @throws MbridgeError exit 7 for a checkpoint that is damaged, exit 3 for one of a run in which more was frozen
 */
export async function restoreOptimizer(
  checkpoint: Checkpoint,
  device: Device,
  optimizer: OptimizerState,
): Promise<void> {
  const saved = checkpoint.state.optimizer;
  if (saved === null) return; // imported weights, before the first update: all zero, as the optimizer begins
  for (const { name } of optimizer.buckets.flatMap(({ bucket }) => bucket.entries.map(({ spec }) => spec))) {
    if (checkpoint.has(tensorName('exp_avg', name))) continue;
    throw new MbridgeError(
      'config',
      'MB_CHECKPOINT_FROZEN',
      `${checkpoint.folder}: ${name} was frozen when it was saved`,
      {
        hint: 'name it in optimizer.frozen_parameters too, or begin anew from the weights: checkpoint.pretrained_checkpoint',
      },
    );
  }
  const uploads = new Uploads(checkpoint, device);
  for (const state of optimizer.buckets) {
    const { bucket, start, m } = state;
    for (const piece of bucketPieces(bucket, start, m.size)) {
      for (const kind of MOMENTS) {
        const out = stateTensor(state, kind).slice(piece.offset - start, areaOf(piece));
        await uploads.upload(kind, piece.spec.name, piece, out);
      }
    }
  }
  const scalars = Float64Array.from({ length: STATE.length }, (_, i) => Number(saved.scalars[i] ?? 0));
  device.write(optimizer.scalars, scalars);
}

function rounded(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length);
  float32ToBfloat16(values, out);
  return out;
}

/** What of the optimizer's state a checkpoint has in other types than a run: `exp_avg becomes bf16, ...`, or nothing. */
export function convertedState(checkpoint: Checkpoint, optimizer: OptimizerState): string {
  const state = optimizer.buckets[0];
  const parameter = state?.bucket.entries[0]?.spec.name;
  if (state === undefined || parameter === undefined) return '';
  const changed = TENSOR_KINDS.flatMap((kind) => {
    const name = tensorName(kind, parameter);
    const { dtype } = stateTensor(state, kind);
    const names = { f32: 'fp32', bf16: 'bf16' } as Partial<Record<DType, string>>;
    const isKept = !checkpoint.has(name) || checkpoint.tensor(name).dtype === dtype.toUpperCase();
    return isKept ? [] : [`${kind === 'weight' ? 'main parameters' : kind} become ${names[dtype]}`];
  });
  return changed.join(', ');
}

/** Takes parts of a checkpoint to a device, through memory that is taken once: fresh pages would cost as much as reading. */
class Uploads {
  readonly #checkpoint: Checkpoint;
  readonly #device: Device;
  #values = new Float32Array(0);

  constructor(checkpoint: Checkpoint, device: Device) {
    this.#checkpoint = checkpoint;
    this.#device = device;
  }

  async upload(kind: TensorKind, parameter: string, { rows, cols }: Rectangle, out: Tensor): Promise<void> {
    const atOnce = Math.max(1, Math.floor(CHUNK_ELEMENTS / cols.count));
    const most = Math.min(rows.count, atOnce) * cols.count;
    if (this.#values.length < most) this.#values = new Float32Array(most);
    for (let row = 0; row < rows.count; row += atOnce) {
      const part = { rows: { start: rows.start + row, count: Math.min(atOnce, rows.count - row) }, cols };
      const chunk = this.#values.subarray(0, areaOf(part));
      await this.#checkpoint.readFloats(tensorName(kind, parameter), part, chunk);
      this.#device.write(out.slice(row * cols.count, chunk.length), out.dtype === 'bf16' ? rounded(chunk) : chunk);
    }
  }
}
