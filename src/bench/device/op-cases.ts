import type { ModelShape } from '../../families/model-shape.js';
import { layerNorms } from '../../families/parameters.js';
import { topK, topKKl } from '../../engine/distill-ops.js';
import { REDUCE_PARTS, STATE, type OptimizerHyper } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import { BenchBuffers } from './buffers.js';
import type { CallCost } from './call-cost.js';
import type { BenchSession } from './session.js';
import type { Timing } from './timer.js';

export interface OpTiming {
  readonly name: string;
  readonly cost: CallCost;
  readonly timing: Timing;
}

/** Sizes of one micro-batch on one of `tp` ranks. */
export interface OpSizes {
  readonly shape: ModelShape;
  readonly tp: number;
  readonly tokens: number;
  readonly seq: number;
  /** Tokens of the residual stream here: fewer under sequence parallelism. */
  readonly localTokens: number;
}

type Run = (round: number) => void;
type OpCase = (session: BenchSession, sizes: OpSizes, buffers: BenchBuffers) => Run;

/** Tokens that a teacher names after each. */
const TOP_K = 64;
/** Elements of a flat optimizer run. */
const FLAT = { cuda: 2 ** 27, cpu: 2 ** 22 } as const;
const HYPER: OptimizerHyper = {
  lr: 1e-4,
  minLr: 0,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  clipGrad: 1,
  warmupIters: 0,
  decayIters: 100,
  decayStyle: 'constant',
  wsdIters: 0,
};

/** Fixed pseudo-random integers below `limit` (a linear congruential generator; quality does not matter here). */
function randomIds(count: number, limit: number): Int32Array {
  let state = 12345;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  });
}

function headSizes({ shape, tp, tokens }: OpSizes) {
  const [heads, kvHeads] = [shape.numHeads / tp, shape.numKvHeads / tp];
  return {
    tokens,
    heads,
    kvHeads,
    headDim: shape.headDim,
    eps: shape.rmsNormEps,
    width: (heads + 2 * kvHeads) * shape.headDim,
  };
}

/** Tensors of the fused head norm (where the family has one) and rotation. */
function rotation(session: BenchSession, sizes: OpSizes, b: BenchBuffers) {
  const { tokens, heads, kvHeads, headDim } = headSizes(sizes);
  const normed = layerNorms(sizes.shape).some(({ width }) => width === 'head');
  return {
    wq: normed ? b.random([headDim], session.act) : null,
    wk: normed ? b.random([headDim], session.act) : null,
    table: b.random([sizes.seq, headDim], 'f32', 0.5),
    positions: b.integers(Int32Array.from({ length: tokens }, (_, i) => i % sizes.seq)),
    rstd: b.filled([tokens, heads + kvHeads], 'f32', 1),
  };
}

function logits({ act }: BenchSession, { shape, tp, tokens }: OpSizes, b: BenchBuffers) {
  const vocab = Math.ceil(shape.vocabSize / tp);
  return {
    set: b.rotate(() => b.random([tokens, vocab], act)),
    targets: b.integers(randomIds(tokens, vocab)),
    stats: b.filled([3, tokens], 'f32', 1),
  };
}

/** The ops of a training step that move most bytes, but for products and attention, at the sizes they have there. */
const CASES: Readonly<Record<string, OpCase>> = {
  rmsnorm_fwd: ({ ops, act }, { shape: { hiddenSize: h, rmsNormEps: eps }, localTokens: t }, b) => {
    const w = b.random([h], act);
    const set = b.rotate(() => ({ x: b.random([t, h], act), y: b.random([t, h], act), rstd: b.filled([t], 'f32', 1) }));
    return (round) => {
      const { x, y, rstd } = set(round);
      ops.rmsnorm(x, w, y, rstd, eps);
    };
  },
  add_rmsnorm_fwd: ({ ops, act }, { shape: { hiddenSize: h, rmsNormEps: eps }, localTokens: t }, b) => {
    const w = b.random([h], act);
    const make = (): Tensor => b.random([t, h], act);
    const set = b.rotate(() => ({ x: make(), delta: make(), sum: make(), y: make(), rstd: b.filled([t], 'f32', 1) }));
    return (round) => {
      const { x, delta, sum, y, rstd } = set(round);
      ops.addRmsnorm(x, delta, w, sum, y, rstd, eps);
    };
  },
  rmsnorm_bwd: ({ ops, act }, { shape: { hiddenSize: h }, localTokens: t }, b) => {
    const [w, dw] = [b.random([h], act), b.filled([h], 'f32', 0)];
    const ws = b.filled([REDUCE_PARTS, h], 'f32', 0);
    const make = (): Tensor => b.random([t, h], act);
    const set = b.rotate(() => ({ dy: make(), x: make(), dx: make(), rstd: b.filled([t], 'f32', 1) }));
    return (round) => {
      ops.rmsnormBwd({ ...set(round), w, dw, ws }, { dx: true, dw: true });
    };
  },
  qknorm_rope_fwd: (session, sizes, b) => {
    const head = headSizes(sizes);
    const t = rotation(session, sizes, b);
    const make = (): Tensor => b.random([head.tokens, head.width], session.act);
    const set = b.rotate(() => ({ qkv: make(), out: make() }));
    return (round) => {
      session.ops.qknormRope({ ...t, ...set(round) }, head);
    };
  },
  qknorm_rope_bwd: (session, sizes, b) => {
    const head = headSizes(sizes);
    const t = rotation(session, sizes, b);
    const gradient = (): Tensor | null => (t.wq === null ? null : b.filled([head.headDim], 'f32', 0));
    const [dwq, dwk] = [gradient(), gradient()];
    const ws = b.filled([REDUCE_PARTS, 2 * head.headDim], 'f32', 0);
    const make = (): Tensor => b.random([head.tokens, head.width], session.act);
    const set = b.rotate(() => ({ dqkv: make(), qkv: make() }));
    return (round) => {
      session.ops.qknormRopeBwd({ ...t, ...set(round), dwq, dwk, ws }, head, true);
    };
  },
  swiglu_fwd: ({ ops, act }, { shape, tp, tokens }, b) => {
    const f = shape.intermediateSize / tp;
    const set = b.rotate(() => ({ gateUp: b.random([tokens, 2 * f], act), out: b.random([tokens, f], act) }));
    return (round) => {
      const { gateUp, out } = set(round);
      ops.swiglu(gateUp, out);
    };
  },
  swiglu_bwd: ({ ops, act }, { shape, tp, tokens }, b) => {
    const f = shape.intermediateSize / tp;
    const make = (): Tensor => b.random([tokens, 2 * f], act);
    const set = b.rotate(() => ({ gateUp: make(), dgateUp: make(), dout: b.random([tokens, f], act) }));
    return (round) => {
      const { gateUp, dgateUp, dout } = set(round);
      ops.swigluBwd(dout, gateUp, dgateUp);
    };
  },
  embed_fwd: ({ ops, act }, { shape: { hiddenSize: h, vocabSize }, tp, tokens }, b) => {
    const w = b.random([Math.ceil(vocabSize / tp), h], act);
    const ids = b.integers(randomIds(tokens, Math.ceil(vocabSize / tp)));
    const set = b.rotate(() => b.random([tokens, h], act));
    return (round) => {
      ops.embed(ids, w, set(round), 0);
    };
  },
  embed_bwd: ({ ops, act }, { shape: { hiddenSize: h, vocabSize }, tp, tokens }, b) => {
    const dw = b.random([Math.ceil(vocabSize / tp), h], 'f32');
    const values = randomIds(tokens, Math.ceil(vocabSize / tp));
    const ids = b.integers(values);
    const sorted = Array.from(values, (_, i) => i).sort((i, j) => (values[i] ?? 0) - (values[j] ?? 0) || i - j);
    const order = b.integers(Int32Array.from(sorted));
    const set = b.rotate(() => b.random([tokens, h], act));
    return (round) => {
      ops.embedBwd(ids, order, set(round), dw, 0);
    };
  },
  ce_stats: (session, sizes, b) => {
    const { set, targets, stats } = logits(session, sizes, b);
    return (round) => {
      session.ops.crossEntropyStats(set(round), targets, stats, 0);
    };
  },
  ce_grad: (session, sizes, b) => {
    const { set, targets, stats } = logits(session, sizes, b);
    const { tokens } = sizes;
    const mask = b.filled([tokens], 'f32', 1);
    const [acc, rowLoss] = [b.filled([2], 'f32', 0), b.filled([tokens], 'f32', 0)];
    const [max, sums] = [stats.rows(0, 1).view(tokens), stats.rows(1, 2)];
    return (round) => {
      session.ops.crossEntropyGrad({ logits: set(round), targets, mask, max, sums, acc, rowLoss }, 0);
    };
  },
  token_moment: (session, sizes, b) => {
    const { set, stats } = logits(session, sizes, b);
    const moment = b.filled([sizes.tokens], 'f32', 0);
    return (round) => {
      session.ops.tokenMoment(set(round), stats.rows(0, 1).view(sizes.tokens), moment);
    };
  },
  token_grad: (session, sizes, b) => {
    const { set, targets, stats } = logits(session, sizes, b);
    const [one, entropy] = [b.filled([sizes.tokens], 'f32', 1), b.filled([sizes.tokens], 'f32', 1)];
    const [max, sums] = [stats.rows(0, 1).view(sizes.tokens), stats.rows(1, 2)];
    return (round) => {
      session.ops.tokenGrad({ logits: set(round), targets, dLogprob: one, dEntropy: one, entropy, max, sums }, 0);
    };
  },
  top_k: (session, sizes, b) => {
    const { set } = logits(session, sizes, b);
    const values = b.filled([sizes.tokens, TOP_K], 'f32', 0);
    const ids = b.integers(new Int32Array(sizes.tokens * TOP_K));
    return (round) => {
      topK(session.device, { logits: set(round), values, ids }, 0);
    };
  },
  top_k_kl: (session, sizes, b) => {
    const { set, stats } = logits(session, sizes, b);
    const vocab = Math.ceil(sizes.shape.vocabSize / sizes.tp);
    const ids = b.integers(Int32Array.from({ length: sizes.tokens * TOP_K }, (_, i) => ((i % TOP_K) * 31) % vocab));
    const [teacher, student] = [b.filled([sizes.tokens, TOP_K], 'f32', -4), b.filled([sizes.tokens, TOP_K], 'f32', 1)];
    const one = stats.rows(0, 1).view(sizes.tokens);
    const [acc, rowLoss] = [b.filled([2], 'f32', 0), b.filled([sizes.tokens], 'f32', 0)];
    return (round) => {
      const t = { logits: set(round), ids, teacher, student, mask: one, max: one, sums: one, acc, rowLoss };
      topKKl(session.device, t, { vstart: 0, temperature: 1 });
    };
  },
  add: ({ ops, act }, { shape: { hiddenSize: h }, tokens }, b) => {
    const make = (): Tensor => b.random([tokens, h], act);
    const set = b.rotate(() => ({ a: make(), b: make(), out: make() }));
    return (round) => {
      const { a, b: other, out } = set(round);
      ops.add(a, other, out);
    };
  },
  bias_add: (session, sizes, b) => {
    const { tokens, width } = headSizes(sizes);
    const bias = b.random([width], session.act);
    const set = b.rotate(() => b.random([tokens, width], session.act));
    return (round) => {
      session.ops.biasAdd(set(round), bias);
    };
  },
  bias_grad: (session, sizes, b) => {
    const { tokens, width } = headSizes(sizes);
    const [db, ws] = [b.filled([width], 'f32', 0), b.filled([REDUCE_PARTS, width], 'f32', 0)];
    const set = b.rotate(() => b.random([tokens, width], session.act));
    return (round) => {
      session.ops.biasGrad(set(round), db, ws, true);
    };
  },
  // The keys and values, out of the columns of qkv.
  copy_2d: (session, sizes, b) => {
    const { tokens, heads, kvHeads, headDim, width } = headSizes(sizes);
    const kv = 2 * kvHeads * headDim;
    const set = b.rotate(() => ({
      qkv: b.random([tokens, width], session.act),
      out: b.random([tokens, kv], session.act),
    }));
    return (round) => {
      const { qkv, out } = set(round);
      session.ops.copyRows(qkv.columns(heads * headDim, kv), out.columns());
    };
  },
  cast: ({ ops, device, act }, _, b) => {
    const [from, to] = [
      b.random([FLAT[device.kind] / 1024, 1024], 'f32'),
      b.random([FLAT[device.kind] / 1024, 1024], act),
    ];
    return () => {
      ops.cast(from, to);
    };
  },
  sumsq: ({ ops, device }, _, b) => {
    const x = b.random([FLAT[device.kind] / 1024, 1024], 'f32');
    const [out, ws] = [b.filled([1], 'f32', 0), b.filled([REDUCE_PARTS], 'f32', 0)];
    return () => {
      ops.sumOfSquares(x, out, ws, false);
    };
  },
  fill: ({ ops, device }, _, b) => {
    const x = b.random([FLAT[device.kind] / 1024, 1024], 'f32');
    return () => {
      ops.fill(x, 0);
    };
  },
  adamw: ({ ops, device, act }, _, b) => {
    const shape = [FLAT[device.kind] / 1024, 1024];
    const make = (std: number): Tensor => b.random(shape, 'f32', std);
    const [p, m, g, v] = [make(0.02), make(1e-3), make(1e-3), b.filled(shape, 'f32', 1e-6)];
    const out = act === 'f32' ? p : b.random(shape, act);
    const state = b.filled([STATE.length], 'f64', 0);
    const [normSq, acc] = [b.filled([1], 'f32', 1), b.filled([2], 'f32', 1)];
    let prepared = false;
    return () => {
      // Sets learning rate, scale and bias corrections; the first calls are not timed.
      if (!prepared) ops.optimizerPrepare(normSq, acc, state, HYPER);
      prepared = true;
      ops.adamw({ p, m, v, g, out, state }, HYPER, 0.1);
    };
  },
};

export const OP_NAMES: readonly string[] = Object.keys(CASES);

/** Times one op by name. */
export function measureOp(session: BenchSession, name: string, sizes: OpSizes): OpTiming {
  const make = CASES[name];
  if (make === undefined) throw new Error(`no op ${name}`);
  const buffers = new BenchBuffers(session.ops);
  const run = make(session, sizes, buffers);
  return buffers.use(() => {
    const cost = session.costOf(() => {
      run(0);
    });
    return { name, cost, timing: session.timer.measure(run) };
  });
}
