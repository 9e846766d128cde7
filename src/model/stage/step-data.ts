import type { MicroBatch } from '../../data/data-iterator.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Device } from '../../engine/device.js';
import { Tensor } from '../../engine/tensor.js';
import type { PerMicroBatch } from '../blocks/stage-env.js';

const FIELDS = ['tokens', 'targets', 'mask', 'order', 'positions'] as const;

/** The inputs of all micro-batches of a step on the device, sent in one copy. */
export class StepData {
  readonly microBatches: number;
  readonly #all: Tensor;
  readonly #host: Int32Array;
  readonly #tokensPerMicroBatch: number;

  constructor(plan: MemoryPlan, microBatches: number, tokensPerMicroBatch: number) {
    this.microBatches = microBatches;
    this.#tokensPerMicroBatch = tokensPerMicroBatch;
    const size = microBatches * FIELDS.length * tokensPerMicroBatch;
    this.#all = plan.tensor('staging', [size], 'i32');
    this.#host = new Int32Array(size);
  }

  /** A field of each micro-batch, [tokens]: int32, the mask float32. */
  field(name: (typeof FIELDS)[number]): PerMicroBatch {
    const tensors = Array.from({ length: this.microBatches }, (_, m) => {
      const ints = this.#all.slice(this.#offset(m, name), this.#tokensPerMicroBatch);
      return name === 'mask' ? new Tensor(ints.region, ints.localOffset, ints.shape, 'f32') : ints;
    });
    return (microBatch) => tensors[microBatch] as Tensor;
  }

  /** Sends a step's micro-batches, all of them: the schedules run every one, also in evaluation. */
  upload(device: Device, batches: readonly MicroBatch[]): void {
    if (batches.length !== this.microBatches) {
      throw new RangeError(`${batches.length} micro-batches where ${this.microBatches} were planned`);
    }
    const floats = new Float32Array(this.#host.buffer);
    batches.forEach((batch, m) => {
      for (const name of FIELDS) {
        const values = batch[name];
        if (values.length !== this.#tokensPerMicroBatch) {
          throw new RangeError(`${name} of ${values.length} where ${this.#tokensPerMicroBatch} were planned`);
        }
        const target = values instanceof Float32Array ? floats : this.#host;
        target.set(values, this.#offset(m, name));
      }
    });
    device.write(this.#all, this.#host);
  }

  #offset(microBatch: number, name: (typeof FIELDS)[number]): number {
    return (microBatch * FIELDS.length + FIELDS.indexOf(name)) * this.#tokensPerMicroBatch;
  }
}
