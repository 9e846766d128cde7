import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { Tensor } from '../../engine/tensor.js';
import { BenchBuffers, MOST_SETS } from './buffers.js';
import type { BenchSession } from './session.js';
import type { Timing } from './timer.js';

export interface AttentionTiming {
  readonly pass: 'forward' | 'backward';
  readonly deterministic: boolean;
  /** In each sequence, of equal length: a token sees its own. */
  readonly documents: number;
  /** Half of what each document's last token sees, all of what came before the first query; the backward has five products to the forward's two. */
  readonly flops: number;
  readonly kernel: string;
  readonly workspaceBytes: number;
  readonly timing: Timing;
}

/** `bounds` of sequences that are packed with documents of `length` tokens, the last one shorter where it must be. */
function documentBounds({ batch, seq, keys = seq, offset = 0 }: AttentionSizes, length: number): Int32Array {
  return Int32Array.from({ length: 2 * batch * seq }, (_, i) => {
    const position = offset + ((i >> 1) % seq);
    const first = position - (position % length);
    return i % 2 === 0 ? first : Math.min(first + length, keys);
  });
}

/** Forward and backward of causal grouped-query attention at one size. */
export function measureAttention(session: BenchSession, sizes: AttentionSizes, documents = 1): AttentionTiming[] {
  const { device, ops, timer, act } = session;
  const { batch, seq, heads, kvHeads, headDim, deterministic, keys = seq, offset = 0 } = sizes;
  const { bytes: workspaceBytes, kernel } = device.attentionWorkspace(act, sizes);
  const queries = batch * seq;
  const wide = [batch * keys, (heads + 2 * kvHeads) * headDim];
  const narrow = [queries, heads * headDim];
  const length = Math.ceil(keys / documents);
  const buffers = new BenchBuffers(ops);
  const workspace = buffers.filled([Math.ceil(Math.max(4, workspaceBytes) / 4)], 'f32', 0);
  const bounds = documents === 1 ? null : buffers.integers(documentBounds(sizes, length));
  const set = buffers.rotate(() => ({
    qkv: buffers.random(wide, act),
    out: buffers.random(narrow, act),
    dout: buffers.random(narrow, act),
    dqkv: buffers.random(wide, act),
    lse: buffers.filled([batch, heads, seq], 'f32', 0),
  }));
  const [qWidth, kvWidth] = [heads * headDim, kvHeads * headDim];
  const columns = (qkv: Tensor) => ({
    q: qkv.rows(0, queries).columns(0, qWidth),
    k: qkv.columns(qWidth, kvWidth),
    v: qkv.columns(qWidth + kvWidth, kvWidth),
  });
  const forward = (round: number): void => {
    const { qkv, out, lse } = set(round);
    ops.attention({ ...columns(qkv), out: out.columns(), lse, bounds, ws: workspace }, sizes);
  };
  const backward = (round: number): void => {
    const { qkv, out, dout, dqkv, lse } = set(round);
    const { q: dq, k: dk, v: dv } = columns(dqkv);
    const given = { ...columns(qkv), out: out.columns(), lse, dout: dout.columns() };
    ops.attentionBwd({ ...given, dq, dk, dv, bounds, ws: workspace }, sizes);
  };
  // What a query sees on average, twice.
  const all = offset < keys ? 2 * keys - seq : 2 * keys;
  const seen = documents === 1 ? all : length;
  const flops = 2 * batch * heads * seq * seen * headDim;
  const timings = buffers.use(() => {
    // In every set, the output and row sums that the backward reads.
    for (let round = 0; round < MOST_SETS; round++) forward(round);
    return [timer.measure(forward), timer.measure(backward)];
  });
  return timings.map((timing, i) => ({
    pass: i === 0 ? 'forward' : 'backward',
    deterministic,
    documents,
    flops: i === 0 ? flops : 2.5 * flops,
    // No library serves bounds (attention_workspace of native/core/abi.h).
    kernel: bounds !== null && device.kind === 'cuda' ? 'mbridge' : kernel,
    workspaceBytes,
    timing,
  }));
}
