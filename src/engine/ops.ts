import type { Device, Stream } from './device.js';
import { STREAM } from './device.js';
import type { Tensor } from './tensor.js';

/** Numbers of `mb_op` in native/core/abi.h, which documents every argument. */
const OP = {
  gemm: 0,
  rmsnormFwd: 1,
  addRmsnormFwd: 2,
  rmsnormBwd: 3,
  ropeTable: 4,
  qknormRopeFwd: 5,
  qknormRopeBwd: 6,
  attentionFwd: 7,
  attentionBwd: 8,
  swigluFwd: 9,
  swigluBwd: 10,
  embedFwd: 11,
  embedBwd: 12,
  ceStats: 13,
  ceRescale: 14,
  ceGrad: 15,
  add: 16,
  cast: 17,
  fill: 18,
  scale: 19,
  sumsq: 20,
  optimizerPrepare: 21,
  adamw: 22,
  initNormal: 23,
} as const;

/** Rows of partial results that deterministic reductions need as workspace: MB_REDUCE_PARTS of abi.h. */
export const REDUCE_PARTS = 256;
/** Length of the optimizer's float64 state; indices as `mb_state_index`. */
export const STATE = {
  gradNorm: 0,
  scale: 1,
  skip: 2,
  step: 3,
  lr: 4,
  loss: 5,
  tokens: 6,
  skippedInRow: 7,
  length: 16,
} as const;

export interface AttentionSizes {
  batch: number;
  seq: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  deterministic: boolean;
}

export interface OptimizerHyper {
  lr: number;
  minLr: number;
  beta1: number;
  beta2: number;
  eps: number;
  clipGrad: number;
  warmupIters: number;
  decayIters: number;
  decayStyle: 'constant' | 'linear' | 'cosine' | 'WSD';
  wsdIters: number;
}

const DECAY_STYLE = { constant: 0, linear: 1, cosine: 2, WSD: 3 } as const;

function dims(t: Tensor): { rows: number; cols: number } {
  const cols = t.shape.at(-1) ?? 1;
  return { rows: t.size / cols, cols };
}

const bit = (flag: boolean): number => (flag ? 1 : 0);

/**
 * The op set, typed. Sizes are read off the tensors, so that a call names only what it computes. Every op is enqueued
 * on `stream` (compute unless said) and returns at once.
 */
export class Ops {
  readonly device: Device;
  readonly #stream: Stream;

  constructor(device: Device, stream: Stream = STREAM.compute) {
    this.device = device;
    this.#stream = stream;
  }

  #run(op: number, tensors: readonly (Tensor | null)[], scalars: readonly number[]): void {
    this.device.run(op, tensors, scalars, this.#stream);
  }

  /** d[m,n] = op(a) op(b) + beta * d, 2-D row-major; `ta`/`tb` say that the stored matrix is the transpose. */
  gemm(a: Tensor, b: Tensor, d: Tensor, options: { ta?: boolean; tb?: boolean; beta?: number } = {}): void {
    const ta = options.ta ?? false;
    const tb = options.tb ?? false;
    const beta = options.beta ?? 0;
    const [da, db] = [dims(a), dims(b)];
    const m = ta ? da.cols : da.rows;
    const k = ta ? da.rows : da.cols;
    const n = tb ? db.rows : db.cols;
    if ((tb ? db.cols : db.rows) !== k || m * n !== d.size) {
      throw new RangeError(`gemm of [${a.shape}]${ta ? "'" : ''} x [${b.shape}]${tb ? "'" : ''} into [${d.shape}]`);
    }
    this.#run(OP.gemm, [a, b, beta === 0 ? null : d, d], [m, n, k, bit(ta), bit(tb), da.cols, db.cols, n, n, 1, beta]);
  }

  /** y = x W^T for W [out, in]. */
  linear(x: Tensor, w: Tensor, y: Tensor): void {
    this.gemm(x, w, y, { tb: true });
  }

  /** dx = dy W. */
  linearDgrad(dy: Tensor, w: Tensor, dx: Tensor): void {
    this.gemm(dy, w, dx);
  }

  /** dw (+)= dy^T x, in float32. */
  linearWgrad(dy: Tensor, x: Tensor, dw: Tensor, accumulate: boolean): void {
    this.gemm(dy, x, dw, { ta: true, beta: bit(accumulate) });
  }

  rmsnorm(x: Tensor, w: Tensor, y: Tensor, rstd: Tensor, eps: number): void {
    const { rows, cols } = dims(x);
    this.#run(OP.rmsnormFwd, [x, w, y, rstd], [rows, cols, eps]);
  }

  /** sum = x + delta, y = rmsnorm(sum). */
  addRmsnorm(x: Tensor, delta: Tensor, w: Tensor, sum: Tensor, y: Tensor, rstd: Tensor, eps: number): void {
    const { rows, cols } = dims(x);
    this.#run(OP.addRmsnormFwd, [x, delta, w, sum, y, rstd], [rows, cols, eps]);
  }

  /** `ws`: REDUCE_PARTS * cols f32. */
  rmsnormBwd(
    t: { dy: Tensor; x: Tensor; w: Tensor; rstd: Tensor; dx: Tensor; dw: Tensor | null; ws: Tensor },
    accumulate: { dx: boolean; dw: boolean },
  ): void {
    const { rows, cols } = dims(t.x);
    const flags = [bit(accumulate.dx), bit(accumulate.dw)];
    this.#run(OP.rmsnormBwd, [t.dy, t.x, t.w, t.rstd, t.dx, t.dw, t.ws], [rows, cols, ...flags]);
  }

  /** table f32 [positions, headDim]. */
  ropeTable(table: Tensor, theta: number): void {
    const { rows, cols } = dims(table);
    this.#run(OP.ropeTable, [table], [rows, cols, theta]);
  }

  qknormRope(
    t: { qkv: Tensor; wq: Tensor; wk: Tensor; table: Tensor; positions: Tensor; out: Tensor; rstd: Tensor },
    sizes: { tokens: number; heads: number; kvHeads: number; headDim: number; eps: number },
  ): void {
    const { tokens, heads, kvHeads, headDim, eps } = sizes;
    const tensors = [t.qkv, t.wq, t.wk, t.table, t.positions, t.out, t.rstd];
    this.#run(OP.qknormRopeFwd, tensors, [tokens, heads, kvHeads, headDim, eps]);
  }

  /** `dqkv` in place; `ws`: REDUCE_PARTS * 2 * headDim f32. */
  qknormRopeBwd(
    t: {
      dqkv: Tensor;
      qkv: Tensor;
      wq: Tensor;
      wk: Tensor;
      table: Tensor;
      positions: Tensor;
      rstd: Tensor;
      dwq: Tensor;
      dwk: Tensor;
      ws: Tensor;
    },
    sizes: { tokens: number; heads: number; kvHeads: number; headDim: number },
    accumulate: boolean,
  ): void {
    const { tokens, heads, kvHeads, headDim } = sizes;
    const tensors = [t.dqkv, t.qkv, t.wq, t.wk, t.table, t.positions, t.rstd, t.dwq, t.dwk, t.ws];
    this.#run(OP.qknormRopeBwd, tensors, [tokens, heads, kvHeads, headDim, bit(accumulate)]);
  }

  /** Causal; the scale is headDim^-0.5. */
  attention(qkv: Tensor, out: Tensor, lse: Tensor, ws: Tensor, sizes: AttentionSizes): void {
    this.#run(OP.attentionFwd, [qkv, out, lse, ws], attentionScalars(sizes));
  }

  attentionBwd(
    t: { qkv: Tensor; out: Tensor; lse: Tensor; dout: Tensor; dqkv: Tensor; ws: Tensor },
    sizes: AttentionSizes,
  ): void {
    this.#run(OP.attentionBwd, [t.qkv, t.out, t.lse, t.dout, t.dqkv, t.ws], attentionScalars(sizes));
  }

  swiglu(gateUp: Tensor, out: Tensor): void {
    const { rows, cols } = dims(out);
    this.#run(OP.swigluFwd, [gateUp, out], [rows, cols]);
  }

  swigluBwd(dout: Tensor, gateUp: Tensor, dgateUp: Tensor): void {
    const { rows, cols } = dims(dout);
    this.#run(OP.swigluBwd, [dout, gateUp, dgateUp], [rows, cols]);
  }

  /** w holds vocabulary rows [vstart, vstart + rows). */
  embed(ids: Tensor, w: Tensor, out: Tensor, vstart: number): void {
    const { rows, cols } = dims(w);
    this.#run(OP.embedFwd, [ids, w, out], [ids.size, cols, vstart, rows]);
  }

  embedBwd(ids: Tensor, order: Tensor, dout: Tensor, dw: Tensor, vstart: number): void {
    const { rows, cols } = dims(dw);
    this.#run(OP.embedBwd, [ids, order, dout, dw], [ids.size, cols, vstart, rows]);
  }

  crossEntropyStats(logits: Tensor, targets: Tensor, stats: Tensor, vstart: number): void {
    const { rows, cols } = dims(logits);
    this.#run(OP.ceStats, [logits, targets, stats], [rows, cols, vstart]);
  }

  crossEntropyRescale(stats: Tensor, globalMax: Tensor): void {
    this.#run(OP.ceRescale, [stats, globalMax], [globalMax.size]);
  }

  crossEntropyGrad(
    t: { logits: Tensor; targets: Tensor; mask: Tensor; max: Tensor; sums: Tensor; acc: Tensor; rowLoss: Tensor },
    vstart: number,
  ): void {
    const { rows, cols } = dims(t.logits);
    const tensors = [t.logits, t.targets, t.mask, t.max, t.sums, t.acc, t.rowLoss];
    this.#run(OP.ceGrad, tensors, [rows, cols, vstart]);
  }

  add(a: Tensor, b: Tensor, out: Tensor): void {
    this.#run(OP.add, [a, b, out], [out.size]);
  }

  cast(input: Tensor, out: Tensor): void {
    this.#run(OP.cast, [input, out], [out.size]);
  }

  fill(out: Tensor, value: number): void {
    this.#run(OP.fill, [out], [out.size, value]);
  }

  scale(x: Tensor, alpha: number): void {
    this.#run(OP.scale, [x], [x.size, alpha]);
  }

  /** out[0] (+)= sum of squares; `ws`: REDUCE_PARTS f32. */
  sumOfSquares(x: Tensor, out: Tensor, ws: Tensor, accumulate: boolean): void {
    this.#run(OP.sumsq, [x, out, ws], [x.size, bit(accumulate)]);
  }

  optimizerPrepare(normSq: Tensor, acc: Tensor, state: Tensor, h: OptimizerHyper): void {
    const style = DECAY_STYLE[h.decayStyle];
    const schedule = [h.lr, h.minLr, h.warmupIters, h.decayIters, style, h.wsdIters];
    this.#run(OP.optimizerPrepare, [normSq, acc, state], [h.clipGrad, h.beta1, h.beta2, ...schedule]);
  }

  adamw(
    t: { p: Tensor; m: Tensor; v: Tensor; g: Tensor; out: Tensor; state: Tensor },
    h: OptimizerHyper,
    weightDecay: number,
  ): void {
    const tensors = [t.p, t.m, t.v, t.g, t.out, t.state];
    this.#run(OP.adamw, tensors, [t.p.size, h.beta1, h.beta2, h.eps, weightDecay]);
  }

  /** Element (r,c) of `out` is element (row0+r, col0+c) of a [*, gcols] matrix of normal deviates of `std`. */
  initNormal(
    out: Tensor,
    place: { row0: number; col0: number; gcols: number },
    std: number,
    seed: bigint,
    key: bigint,
  ): void {
    const { rows, cols } = dims(out);
    const halves = [seed, key].flatMap((x) => [Number(x & 0xffffffffn), Number((x >> 32n) & 0xffffffffn)]);
    this.#run(OP.initNormal, [out], [rows, cols, place.row0, place.col0, place.gcols, std, ...halves]);
  }
}

function attentionScalars(s: AttentionSizes): number[] {
  return [s.batch, s.seq, s.heads, s.kvHeads, s.headDim, s.headDim ** -0.5, bit(s.deterministic)];
}
