import type { Device } from '../../engine/device.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import { openDevice } from '../../engine/open-device.js';
import { Ops } from '../../engine/ops.js';
import { adaptedWeights, adapterNames, type Adapters } from '../../families/adapters.js';
import { modelShape } from '../../families/model-shape.js';
import { wholeOf } from '../../model/parameters/rectangle.js';
import type { Checkpoint } from '../format/checkpoint.js';
import type { TensorRecord } from '../format/checkpoint-format.js';
import { modelOfSizes } from './hf-files.js';

/** Of a matrix at once. */
const CHUNK_BYTES = 16 << 20;
const THREADS = 4;

/**
 * The weights of the one model that a checkpoint with adapters stands for: W + alpha / rank * B A in float32 where there is an
 * adapter, all others as they are stored.
 */
export class MergedWeights {
  readonly #checkpoint: Checkpoint;
  readonly #adapters: Adapters;
  readonly #adapted: ReadonlySet<string>;

  constructor(checkpoint: Checkpoint, adapters: Adapters) {
    const shape = modelShape({ model: modelOfSizes(checkpoint.state.model) });
    this.#checkpoint = checkpoint;
    this.#adapters = adapters;
    this.#adapted = new Set(adaptedWeights(shape, adapters).map(({ name }) => name));
  }

  tensor(name: string): Pick<TensorRecord, 'dtype' | 'shape' | 'pieces'> {
    const record = this.#checkpoint.tensor(name);
    return this.#adapted.has(name) ? { ...record, dtype: 'F32' } : record;
  }

  bytesOf(name: string): AsyncGenerator<Uint8Array> {
    return this.#adapted.has(name) ? this.#merged(name) : this.#checkpoint.bytesOf(name);
  }

  /** Some MiB at a time, each in fresh memory. */
  async *#merged(name: string): AsyncGenerator<Uint8Array> {
    const checkpoint = this.#checkpoint;
    const { rank, alpha } = this.#adapters;
    const { a, b } = adapterNames(name);
    const { rows, cols } = wholeOf(checkpoint.tensor(name).shape);
    const atOnce = Math.min(rows.count, Math.max(1, Math.floor(CHUNK_BYTES / (4 * cols.count))));
    const plan = new MemoryPlan();
    const of = (...shape: number[]) => plan.tensor('workspace', shape, 'f32');
    const [left, right, sum] = [of(atOnce, rank), of(rank, cols.count), of(atOnce, cols.count)];
    const device: Device = openDevice('cpu', 0, THREADS);
    try {
      plan.commit(device);
      const ops = new Ops(device);
      const values = new Float32Array(rank * cols.count);
      await checkpoint.readFloats(a, wholeOf([rank, cols.count]), values);
      device.write(right, values);
      for (let done = 0; done < rows.count; done += atOnce) {
        const part = { start: done, count: Math.min(atOnce, rows.count - done) };
        const [factor, weight] = [rank, cols.count].map((width) => new Float32Array(part.count * width));
        await checkpoint.readFloats(b, { rows: part, cols: { start: 0, count: rank } }, factor!);
        await checkpoint.readFloats(name, { rows: part, cols }, weight!);
        const [x, y] = [left.rows(0, part.count), sum.rows(0, part.count)];
        device.write(x, factor!);
        device.write(y, weight!);
        ops.gemm(x, right, y, { alpha: alpha / rank, beta: 1 });
        device.read(y, weight!);
        yield new Uint8Array(weight!.buffer);
      }
      plan.release();
    } finally {
      device.close();
    }
  }
}
