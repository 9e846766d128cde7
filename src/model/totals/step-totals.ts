import type { CommGroup } from '../../groups/comm/comm-group.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import { STATE, type Ops } from '../../engine/ops.js';
import { Tensor } from '../../engine/tensor.js';

/** A tensor takes 256 bytes of the arena at least, so this many cost nothing. */
const MOST_SLOTS = 64;
const SLOT_BYTES = 4;

/** What a step came to: its totals by name, and the optimizer's state (see STATE), where there is an optimizer. */
export interface StepReport {
  readonly totals: Readonly<Record<string, number>>;
  readonly state: Float64Array;
}

/**
 * Sums of a step by name: squared gradient norm, loss, counted tokens, and whatever a loss or another component adds.
 * Each is a float32 number on the device that components add to while the step runs; then one reduction makes it the
 * sum over the model's ranks. All ranks ask for the same names in the same order while the model is planned.
 */
export class StepTotals {
  /** f32 [2]: sum of the counted tokens' losses, and their number. Equal on all tp ranks. */
  readonly lossAndTokens: Tensor;
  /** float64 [STATE.length]: the optimizer's counters, beside the totals so that one fetch reads both. Empty without one. */
  readonly state: Tensor;
  readonly #memory: Tensor;
  readonly #names: string[] = [];
  /** Runs of slots that another rank counts. */
  readonly #uncounted: Tensor[] = [];

  /**
   * @param options.trainable whether an optimizer needs its state
   * @param options.countsLoss false on tp ranks other than the first, which have the same loss
   */
  constructor(plan: MemoryPlan, { trainable, countsLoss }: { trainable: boolean; countsLoss: boolean }) {
    const stateLength = trainable ? STATE.length : 0;
    const region = trainable ? 'optimizer' : 'workspace';
    this.#memory = plan.tensor(region, [MOST_SLOTS + 2 * stateLength], 'f32');
    const { localOffset } = this.#memory;
    this.state = new Tensor(this.#memory.region, localOffset + MOST_SLOTS * SLOT_BYTES, [stateLength], 'f64');
    this.lossAndTokens = this.reserve(['loss', 'tokens'], countsLoss);
  }

  /**
   * Reserves totals that lie side by side, f32 [names.length], zero as a step begins.
   * @param counted false where other ranks add the same numbers: theirs are the ones that count
   */
  reserve(names: readonly string[], counted = true): Tensor {
    const taken = names.find((name, i) => this.#names.includes(name) || names.indexOf(name) !== i);
    if (taken !== undefined) throw new Error(`the total ${taken} is there already`);
    const slots = this.#memory.slice(this.#names.length, names.length);
    if (this.#names.length + names.length > MOST_SLOTS) throw new Error(`a step has at most ${MOST_SLOTS} totals`);
    this.#names.push(...names);
    if (!counted) this.#uncounted.push(slots);
    return slots;
  }

  /** To be called as a step begins: all totals are zero. */
  begin(ops: Ops): void {
    ops.fill(this.#all, 0);
  }

  /** Sums over the model's ranks, in one reduction; then every rank has the same totals. Once a step. */
  reduce(ops: Ops, model: CommGroup): void {
    for (const slots of this.#uncounted) ops.fill(slots, 0);
    model.allReduce(this.#all);
  }

  /** Reads totals and state as they are at this point of the compute stream, without stopping it. */
  async fetch({ device }: Ops): Promise<StepReport> {
    const { buffer, byteOffset } = await device.fetch(this.#memory);
    const values = new Float32Array(buffer, byteOffset, this.#names.length);
    const totals = Object.fromEntries(this.#names.map((name, i) => [name, values[i] ?? NaN]));
    return { totals, state: new Float64Array(buffer, byteOffset + MOST_SLOTS * SLOT_BYTES, this.state.size) };
  }

  get #all(): Tensor {
    return this.#memory.slice(0, this.#names.length);
  }
}
