import { FP8_BLOCK, gemmFp8, quantize, scaleCount, type Codes, type Quantized } from '../../engine/fp8-ops.js';
import { Tensor } from '../../engine/tensor.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { StageEnv } from './stage-env.js';

/** Which products of a model are in e4m3: those of its layers, but for what is said here. */
export interface Fp8 {
  /** Whether gradients of weights are too; false leaves them to bf16. */
  readonly wgrad: boolean;
  /** How many decoder layers at either end of the whole model have none. */
  readonly bf16Ends: number;
}

/** What a product takes: a matrix, or its e4m3, where an op has made that at once. */
export type Operand = Tensor | Quantized;

/** The blocks of what is multiplied: see docs/numerics.md. Of two operands one at most has blocks of 128 rows. */
const BLOCKS = { x: 1, xT: FP8_BLOCK, weight: FP8_BLOCK, dy: 1, dyT: 1 } as const;

/** The products y = x W', dx = dy W and dW = dy' x in e4m3. The weight is quantised once a pass over it. */
export class Fp8Product {
  /** Whether dW is such a product; else it is the caller's. */
  readonly wgrad: boolean;
  readonly #env: StageEnv;
  readonly #source: Tensor;
  readonly #weight: Quantized & { readonly q: Codes };
  /** Temporaries: x until its product is there, and from `dgrad` to `wgrad` dy. */
  readonly #x: { readonly q: Codes; readonly t: Codes };
  readonly #dy: Quantized & { readonly q: Codes };
  #pass: number | null = null;

  /** @param weight [outputs, inputs] */
  constructor(env: StageEnv, weight: Tensor, { wgrad }: Fp8) {
    const [outputs = 0, inputs = 0] = weight.shape;
    const { tokens } = env.sizes;
    this.wgrad = wgrad;
    this.#env = env;
    this.#source = weight;
    this.#weight = {
      q: planCodes(env.plan, 'fp8', outputs, inputs, BLOCKS.weight),
      t: env.trains ? planCodes(env.plan, 'fp8', inputs, outputs, BLOCKS.weight) : null,
    };
    this.#x = inputScratch(env, inputs);
    this.#dy = {
      q: scratchCodes(env, 'fp8.dy', tokens, outputs, BLOCKS.dy),
      t: wgrad ? scratchCodes(env, 'fp8.dyT', outputs, tokens, BLOCKS.dyT) : null,
    };
  }

  /** Where the op that makes dy may write it, until `wgrad`. */
  get dy(): Quantized {
    return this.#dy;
  }

  /** @param into where e4m3 of a tensor goes, if what is there of it is wanted after the call */
  forward(x: Operand, y: Tensor, into: Quantized | null): void {
    const { device } = this.#env.ops;
    this.#refresh();
    let from = x;
    if (from instanceof Tensor) {
      from = into ?? { q: this.#x.q, t: null };
      quantize(device, x as Tensor, from);
    }
    gemmFp8(device, sideOf(from.q), this.#weight.q, y);
  }

  dgrad(dy: Operand, dx: Tensor): void {
    const { device } = this.#env.ops;
    if (dy instanceof Tensor) quantize(device, dy, this.#dy);
    gemmFp8(device, this.#dy.q, sideOf(this.#weight.t), dx);
  }

  /** Follows `dgrad`, whose dy it is of. */
  gradient(x: Operand, dw: Tensor, accumulate: boolean): void {
    const { device } = this.#env.ops;
    let from = x;
    if (from instanceof Tensor) {
      from = { q: null, t: this.#x.t };
      quantize(device, x as Tensor, from);
    }
    gemmFp8(device, sideOf(this.#dy.t), sideOf(from.t), dw, accumulate);
  }

  /** A weight may be another one in each pass, and is the same throughout one. */
  #refresh(): void {
    if (this.#pass === this.#env.pass) return;
    quantize(this.#env.ops.device, this.#source, this.#weight);
    this.#pass = this.#env.pass;
  }
}

/** A product's x in e4m3 for each micro-batch in flight: x as the forward takes it is scratch, x' is kept for a backward. */
export function savedInput(
  env: StageEnv,
  key: string,
  inputs: number,
  slots: number,
  droppedBy: 'full' | 'swiglu',
): (microBatch: number) => Quantized {
  const { tokens } = env.sizes;
  const { q } = inputScratch(env, inputs);
  if (!env.trains) return () => ({ q, t: null });
  const scales = [scaleCount(inputs, tokens, BLOCKS.xT)];
  const codesOf = env.saved(key, [inputs, tokens], slots, droppedBy, 'u8');
  const scalesOf = env.saved(`${key}.scales`, scales, slots, droppedBy, 'f32');
  return (microBatch) => ({ q, t: { codes: codesOf(microBatch), scales: scalesOf(microBatch), block: BLOCKS.xT } });
}

/** Nobody wants x and x' at one time. */
function inputScratch(env: StageEnv, inputs: number): { q: Codes; t: Codes } {
  const { tokens } = env.sizes;
  return {
    q: scratchCodes(env, 'fp8.x', tokens, inputs, BLOCKS.x),
    t: scratchCodes(env, 'fp8.x', inputs, tokens, BLOCKS.xT),
  };
}

function planCodes(plan: MemoryPlan, region: 'fp8', rows: number, cols: number, block: Codes['block']): Codes {
  const scales = plan.tensor(region, [scaleCount(rows, cols, block)], 'f32');
  return { codes: plan.tensor(region, [rows, cols], 'u8'), scales, block };
}

/** One temporary for all products of a stage, as large as the largest of them needs it; one of its sides is the tokens. */
function scratchCodes(env: StageEnv, key: string, rows: number, cols: number, block: Codes['block']): Codes {
  const { tokens, qkvWidth, ffn } = env.sizes;
  const most = tokens * Math.max(env.shape.hiddenSize, qkvWidth, 2 * ffn);
  const codes = env.scratch(key, [most], 'u8').slice(0, rows * cols, [rows, cols]);
  const scales = env.scratch(`${key}.scales`, [most / FP8_BLOCK], 'f32').slice(0, scaleCount(rows, cols, block));
  return { codes, scales, block };
}

function sideOf(codes: Codes | null): Codes {
  if (codes === null) throw new Error('a product wants the side of an e4m3 operand that was not made');
  return codes;
}
