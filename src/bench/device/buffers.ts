import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM } from '../../engine/device.js';
import type { DType } from '../../engine/dtype.js';
import { MemoryPlan } from '../../engine/memory-plan.js';
import type { Ops } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import { refuseIfTooLarge } from '../../train/memory-check.js';

/** More than any cache holds: buffers that are used in turn reach this together, so that each call reads memory. */
const ROTATION_BYTES = { cpu: 2 ** 24, cuda: 2 ** 28 } as const;
/** Most sets that {@link BenchBuffers.rotate} makes. */
export const MOST_SETS = 16;

/**
 * Memory of one measurement: asked for first, then taken and filled at once. Values are normal deviates, for zeros can
 * be faster than real data.
 */
export class BenchBuffers {
  readonly #ops: Ops;
  readonly #plan = new MemoryPlan();
  readonly #fillers: (() => void)[] = [];

  constructor(ops: Ops) {
    this.#ops = ops;
  }

  /** Normal deviates of standard deviation `std`; bf16 or f32. */
  random(shape: readonly number[], dtype: 'f32' | 'bf16', std = 1): Tensor {
    const tensor = this.#plan.tensor('workspace', shape, dtype);
    const cols = shape.at(-1) ?? 1;
    const key = BigInt(this.#fillers.length + 1);
    this.#fillers.push(() => {
      this.#ops.initNormal(tensor.view(tensor.size / cols, cols), { row0: 0, col0: 0, gcols: cols }, std, 1234n, key);
    });
    return tensor;
  }

  /** Every element `value`. */
  filled(shape: readonly number[], dtype: DType, value: number): Tensor {
    const tensor = this.#plan.tensor('workspace', shape, dtype);
    this.#fillers.push(() => {
      this.#ops.fill(tensor, value);
    });
    return tensor;
  }

  integers(values: Int32Array): Tensor {
    const tensor = this.#plan.tensor('workspace', [values.length], 'i32');
    this.#fillers.push(() => {
      this.#ops.device.write(tensor, values, STREAM.compute);
    });
    return tensor;
  }

  /** Equal sets of tensors to be used in turn, as many as it takes to outgrow the caches. */
  rotate<Set>(make: () => Set): (round: number) => Set {
    const before = this.#plan.totalBytes;
    const sets = [make()];
    const bytes = Math.max(1, this.#plan.totalBytes - before);
    const wanted = Math.min(MOST_SETS, Math.ceil(ROTATION_BYTES[this.#ops.device.kind] / bytes));
    while (sets.length < wanted) sets.push(make());
    return (round) => sets[round % sets.length] as Set;
  }

  /** Takes and fills the memory, shares it with the members of `group`, runs `measure`, and gives it back. */
  use<Result>(measure: () => Result, group: CommGroup | null = null): Result {
    refuseIfTooLarge(this.#plan, this.#ops.device, 1);
    this.#plan.commit(this.#ops.device);
    group?.share(this.#plan);
    for (const fill of this.#fillers) fill();
    this.#ops.device.synchronize();
    const result = measure();
    this.#ops.device.synchronize();
    this.#plan.release();
    return result;
  }
}
