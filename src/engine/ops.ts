import type { AttentionSizes } from './attention-sizes.js';
import type { Device, Stream } from './device.js';
import { STREAM } from './device.js';
import { DTYPES } from './dtype.js';
import { OPS, type OpDeclaration } from './op-table.js';
import { randomWords } from './optimizer-ops.js';
import { columnsOf, type Strided, type Tensor } from './tensor.js';

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

/** Queries [batch * seq, heads * headDim], and keys and values [batch * keys, kvHeads * headDim]. */
export interface AttentionInputs {
  q: Strided;
  k: Strided;
  v: Strided;
  /** i32 [batch, seq, 2]: the first key that a query may see, and one past the last. Absent: all up to its own. */
  bounds?: Tensor | null;
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
  readonly #fixedOrder: boolean;

  /** @param choices.batchInvariant a token gets the same bits from `linear` and `attention` whatever it is computed with */
  constructor(device: Device, stream: Stream = STREAM.compute, choices: { readonly batchInvariant?: boolean } = {}) {
    this.device = device;
    this.#stream = stream;
    this.#fixedOrder = choices.batchInvariant ?? false;
  }

  #run(op: OpDeclaration, tensors: readonly (Tensor | null)[], scalars: readonly number[]): void {
    this.device.run(op.number, tensors, scalars, this.#stream);
  }

  /** d[m,n] = alpha * op(a) op(b) + beta * d, row-major; `ta`/`tb` say that the stored matrix is the transpose. */
  gemm(
    a: Tensor | Strided,
    b: Tensor | Strided,
    d: Tensor | Strided,
    options: { ta?: boolean; tb?: boolean; alpha?: number; beta?: number; fixedOrder?: boolean } = {},
  ): void {
    const { ta = false, tb = false, alpha = 1, beta = 0, fixedOrder = false } = options;
    const [x, y] = [columnsOf(a), columnsOf(b)];
    const [m, k] = ta ? [x.width, x.rows] : [x.rows, x.width];
    const [inner, n] = tb ? [y.width, y.rows] : [y.rows, y.width];
    // A matrix that lies without gaps may be cut into rows otherwise.
    const z = 'data' in d ? d : { data: d, rows: d.size / n, width: n, stride: n };
    if (inner !== k || z.rows !== m || z.width !== n) {
      const text = ({ rows, width }: Strided, turned: boolean): string => `[${rows}, ${width}]${turned ? "'" : ''}`;
      throw new RangeError(`gemm of ${text(x, ta)} x ${text(y, tb)} into ${text(z, false)}`);
    }
    const scalars = [m, n, k, bit(ta), bit(tb), x.stride, y.stride, z.stride, z.stride, alpha, beta, bit(fixedOrder)];
    this.#run(OPS.gemm, [x.data, y.data, beta === 0 ? null : z.data, z.data], scalars);
  }

  /** y = x W^T for W [out, in]. */
  linear(x: Tensor, w: Tensor, y: Tensor): void {
    this.gemm(x, w, y, { tb: true, fixedOrder: this.#fixedOrder });
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
    this.#run(OPS.rmsnormFwd, [x, w, y, rstd], [rows, cols, eps]);
  }

  /** sum = x + delta, y = rmsnorm(sum). */
  addRmsnorm(x: Tensor, delta: Tensor, w: Tensor, sum: Tensor, y: Tensor, rstd: Tensor, eps: number): void {
    const { rows, cols } = dims(x);
    this.#run(OPS.addRmsnormFwd, [x, delta, w, sum, y, rstd], [rows, cols, eps]);
  }

  /** `ws`: REDUCE_PARTS * cols f32. */
  rmsnormBwd(
    t: { dy: Tensor; x: Tensor; w: Tensor; rstd: Tensor; dx: Tensor; dw: Tensor | null; ws: Tensor },
    accumulate: { dx: boolean; dw: boolean },
  ): void {
    const { rows, cols } = dims(t.x);
    const flags = [bit(accumulate.dx), bit(accumulate.dw)];
    this.#run(OPS.rmsnormBwd, [t.dy, t.x, t.w, t.rstd, t.dx, t.dw, t.ws], [rows, cols, ...flags]);
  }

  /**
   * table f32 [positions, headDim].
   * @param frequencies f64 or f32 [headDim / 2], radians a position, in place of those of `theta`
   * @param scale what cosines and sines are multiplied by
   */
  ropeTable(table: Tensor, theta: number, frequencies: Tensor | null = null, scale = 1): void {
    const { rows, cols } = dims(table);
    this.#run(OPS.ropeTable, [table, frequencies], [rows, cols, theta, scale]);
  }

  /** Norm of every q and k head and rotation; without `wq`, `wk` (and `rstd`) the rotation alone. */
  qknormRope(
    t: {
      qkv: Tensor;
      wq: Tensor | null;
      wk: Tensor | null;
      table: Tensor;
      positions: Tensor;
      out: Tensor;
      rstd: Tensor | null;
    },
    sizes: { tokens: number; heads: number; kvHeads: number; headDim: number; eps: number },
  ): void {
    const { tokens, heads, kvHeads, headDim, eps } = sizes;
    const tensors = [t.qkv, t.wq, t.wk, t.table, t.positions, t.out, t.rstd];
    this.#run(OPS.qknormRopeFwd, tensors, [tokens, heads, kvHeads, headDim, eps]);
  }

  /** `dqkv` in place; `ws`: REDUCE_PARTS * 2 * headDim f32. Without a norm only `dqkv`, table and positions are used. */
  qknormRopeBwd(
    t: {
      dqkv: Tensor;
      qkv: Tensor | null;
      wq: Tensor | null;
      wk: Tensor | null;
      table: Tensor;
      positions: Tensor;
      rstd: Tensor | null;
      dwq: Tensor | null;
      dwk: Tensor | null;
      ws: Tensor | null;
    },
    sizes: { tokens: number; heads: number; kvHeads: number; headDim: number },
    accumulate: boolean,
  ): void {
    const { tokens, heads, kvHeads, headDim } = sizes;
    const tensors = [t.dqkv, t.qkv, t.wq, t.wk, t.table, t.positions, t.rstd, t.dwq, t.dwk, t.ws];
    this.#run(OPS.qknormRopeBwd, tensors, [tokens, heads, kvHeads, headDim, bit(accumulate)]);
  }

  /** out [batch * seq, heads * headDim], lse f32 [batch, heads, seq]; the scale is headDim^-0.5. */
  attention(t: AttentionInputs & { out: Strided; lse: Tensor; ws: Tensor }, sizes: AttentionSizes): void {
    const tensors = [t.q.data, t.k.data, t.v.data, t.out.data, t.lse, t.bounds ?? null, t.ws];
    const scalars = [...attentionScalars(sizes, [t.q, t.k, t.v, t.out]), bit(this.#fixedOrder)];
    this.#run(OPS.attentionFwd, tensors, scalars);
  }

  /** `dout` lies as `out` does; dq, dk and dv are written wholly. */
  attentionBwd(
    t: AttentionInputs & {
      out: Strided;
      lse: Tensor;
      dout: Strided;
      dq: Strided;
      dk: Strided;
      dv: Strided;
      ws: Tensor;
    },
    sizes: AttentionSizes,
  ): void {
    if (t.dout.stride !== t.out.stride) throw new RangeError('attention: dout does not lie as out does');
    const inputs = [t.q.data, t.k.data, t.v.data, t.out.data, t.lse, t.dout.data];
    const tensors = [...inputs, t.dq.data, t.dk.data, t.dv.data, t.bounds ?? null, t.ws];
    this.#run(OPS.attentionBwd, tensors, attentionScalars(sizes, [t.q, t.k, t.v, t.out, t.dq, t.dk, t.dv]));
  }

  swiglu(gateUp: Tensor, out: Tensor): void {
    const { rows, cols } = dims(out);
    this.#run(OPS.swigluFwd, [gateUp, out], [rows, cols]);
  }

  swigluBwd(dout: Tensor, gateUp: Tensor, dgateUp: Tensor): void {
    const { rows, cols } = dims(dout);
    this.#run(OPS.swigluBwd, [dout, gateUp, dgateUp], [rows, cols]);
  }

  /** w holds vocabulary rows [vstart, vstart + rows). */
  embed(ids: Tensor, w: Tensor, out: Tensor, vstart: number): void {
    const { rows, cols } = dims(w);
    this.#run(OPS.embedFwd, [ids, w, out], [ids.size, cols, vstart, rows]);
  }

  embedBwd(ids: Tensor, order: Tensor, dout: Tensor, dw: Tensor, vstart: number): void {
    const { rows, cols } = dims(dw);
    this.#run(OPS.embedBwd, [ids, order, dout, dw], [ids.size, cols, vstart, rows]);
  }

  crossEntropyStats(logits: Tensor, targets: Tensor, stats: Tensor, vstart: number): void {
    const { rows, cols } = dims(logits);
    this.#run(OPS.ceStats, [logits, targets, stats], [rows, cols, vstart]);
  }

  crossEntropyRescale(stats: Tensor, globalMax: Tensor): void {
    this.#run(OPS.ceRescale, [stats, globalMax], [globalMax.size]);
  }

  crossEntropyGrad(
    t: { logits: Tensor; targets: Tensor; mask: Tensor; max: Tensor; sums: Tensor; acc: Tensor; rowLoss: Tensor },
    vstart: number,
  ): void {
    const { rows, cols } = dims(t.logits);
    const tensors = [t.logits, t.targets, t.mask, t.max, t.sums, t.acc, t.rowLoss];
    this.#run(OPS.ceGrad, tensors, [rows, cols, vstart]);
  }

  /** moment f32 [rows] = sum over the shard's columns of exp(x - max) * (x - max). */
  tokenMoment(logits: Tensor, max: Tensor, moment: Tensor): void {
    const { rows, cols } = dims(logits);
    this.#run(OPS.tokenMoment, [logits, max, moment], [rows, cols]);
  }

  /** Log-probability of the target, and entropy, of every row, f32 [rows]; `sums` and `moment` over all shards. */
  tokenValues(t: { max: Tensor; sums: Tensor; moment: Tensor; logprob: Tensor; entropy: Tensor }): void {
    this.#run(OPS.tokenValues, [t.max, t.sums, t.moment, t.logprob, t.entropy], [t.logprob.size]);
  }

  /** Logits become their gradient: dLogprob (onehot - p) - dEntropy p (log p + entropy). */
  tokenGrad(
    t: {
      logits: Tensor;
      targets: Tensor;
      dLogprob: Tensor;
      dEntropy: Tensor;
      entropy: Tensor;
      max: Tensor;
      sums: Tensor;
    },
    vstart: number,
  ): void {
    const { rows, cols } = dims(t.logits);
    const tensors = [t.logits, t.targets, t.dLogprob, t.dEntropy, t.entropy, t.max, t.sums];
    this.#run(OPS.tokenGrad, tensors, [rows, cols, vstart]);
  }

  add(a: Tensor, b: Tensor, out: Tensor): void {
    this.#run(OPS.add, [a, b, out], [out.size]);
  }

  /** y[row] += bias for every row. */
  biasAdd(y: Tensor, bias: Tensor): void {
    const { rows, cols } = dims(y);
    this.#run(OPS.biasAdd, [y, bias], [rows, cols]);
  }

  /** db f32 (+)= sum of the rows of dy; `ws`: REDUCE_PARTS * columns f32. */
  biasGrad(dy: Tensor, db: Tensor, ws: Tensor, accumulate: boolean): void {
    const { rows, cols } = dims(dy);
    this.#run(OPS.biasGrad, [dy, db, ws], [rows, cols, bit(accumulate)]);
  }

  /** Copies the rows of one view to another of the same row length; both may be columns of one matrix. */
  copyRows(from: Strided, to: Strided): void {
    const size = DTYPES[from.data.dtype].bytes;
    if (from.rows !== to.rows || from.width !== to.width || from.data.dtype !== to.data.dtype) {
      throw new RangeError(`copy of [${from.rows}, ${from.width}] into [${to.rows}, ${to.width}]`);
    }
    const scalars = [from.rows, from.width * size, from.stride * size, to.stride * size];
    this.#run(OPS.copy2d, [from.data, to.data], scalars);
  }

  cast(input: Tensor, out: Tensor): void {
    this.#run(OPS.cast, [input, out], [out.size]);
  }

  fill(out: Tensor, value: number): void {
    this.#run(OPS.fill, [out], [out.size, value]);
  }

  /** out[0] (+)= sum of squares; `ws`: REDUCE_PARTS f32. */
  sumOfSquares(x: Tensor, out: Tensor, ws: Tensor, accumulate: boolean): void {
    this.#run(OPS.sumsq, [x, out, ws], [x.size, bit(accumulate)]);
  }

  optimizerPrepare(normSq: Tensor, acc: Tensor, state: Tensor, h: OptimizerHyper): void {
    const style = DECAY_STYLE[h.decayStyle];
    const schedule = [h.lr, h.minLr, h.warmupIters, h.decayIters, style, h.wsdIters];
    this.#run(OPS.optimizerPrepare, [normSq, acc, state], [h.clipGrad, h.beta1, h.beta2, ...schedule]);
  }

  adamw(
    t: { p: Tensor; m: Tensor; v: Tensor; g: Tensor; out: Tensor; state: Tensor },
    h: OptimizerHyper,
    weightDecay: number,
  ): void {
    const tensors = [t.p, t.m, t.v, t.g, t.out, t.state];
    this.#run(OPS.adamw, tensors, [t.p.size, h.beta1, h.beta2, h.eps, weightDecay]);
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
    const words = randomWords({ seed, key });
    this.#run(OPS.initNormal, [out], [rows, cols, place.row0, place.col0, place.gcols, std, ...words]);
  }
}

function attentionScalars(s: AttentionSizes, views: readonly Strided[]): number[] {
  const { batch, seq, heads, kvHeads, headDim, deterministic, keys = seq, offset = 0 } = s;
  const strides = views.map(({ stride }) => stride);
  const sizes = [batch, seq, keys, heads, kvHeads, headDim, ...strides, keys, offset];
  return [...sizes, headDim ** -0.5, bit(deterministic)];
}
