import { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import type { StageEnv } from '../blocks/stage-env.js';
import { TokenColumns } from './token-columns.js';

/** Brings hidden states to the host. It has memory of its own, from construction on, until it is disposed of. */
export class HiddenReader {
  readonly #env: StageEnv;
  readonly #plan = new MemoryPlan();
  readonly #columns: TokenColumns;

  constructor(env: StageEnv) {
    this.#env = env;
    this.#columns = new TokenColumns(env, this.#plan, env.shape.hiddenSize, 'f32');
    this.#plan.commit(env.ops.device);
  }

  /** @param hidden act [tokens, hidden] */
  take(hidden: Tensor): void {
    this.#env.ops.cast(hidden, this.#columns.own);
  }

  /** Waits for the device. @returns f32 [b*s*hidden] */
  found(): Float32Array {
    const { sizes, shape } = this.#env;
    const found = new Float32Array(sizes.batch * sizes.seq * shape.hiddenSize);
    this.#columns.read(found);
    return found;
  }

  dispose(): void {
    this.#plan.release();
  }
}
