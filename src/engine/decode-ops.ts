import { STREAM, type Device } from './device.js';
import { OPS } from './op-table.js';
import type { Strided, Tensor } from './tensor.js';

// The ops of generation; ops.def documents them. All of them go to the compute stream.

/** MB_CHUNK_KEYS, MB_CACHE_STEP and MB_SAMPLE_PARTS of abi.h. */
export const DECODE = { chunkKeys: 256, cacheStep: 16, sampleParts: 8 } as const;

/** Keys and values of one layer, each [slots, context, kvHeads * headDim], and where the tokens of a call are in them. */
export interface CachedRows {
  k: Tensor;
  v: Tensor;
  /** i32 [tokens]: slots, and places in them; a token with none there is left out. */
  cells: Tensor;
  positions: Tensor;
}

interface HeadSizes {
  heads: number;
  kvHeads: number;
  headDim: number;
}

/** Puts the keys and values of `qkv`, as `Ops.qknormRope` leaves it, into a cache. */
export function kvStore(device: Device, qkv: Tensor, c: CachedRows, { heads, kvHeads, headDim }: HeadSizes): void {
  const [slots = 0, context = 0] = c.v.shape;
  const scalars = [c.cells.size, heads, kvHeads, headDim, slots, context];
  device.run(OPS.kvStore.number, [qkv, c.cells, c.positions, c.k, c.v], scalars, STREAM.compute);
}

/**
 * out [tokens, heads * headDim] of single queries over a cache.
 * @param t.ws tokens * heads * ceil(context / DECODE.chunkKeys) * (headDim + 2) f32; null for `prompts` in bf16
 * @param prompts whether neighbouring tokens mostly share a slot: it changes the time alone
 */
export function attentionDecode(
  device: Device,
  t: CachedRows & { q: Strided; out: Tensor; ws: Tensor | null },
  { heads, kvHeads, headDim }: HeadSizes,
  prompts: boolean,
): void {
  const [slots = 0, context = 0] = t.v.shape;
  const tensors = [t.q.data, t.cells, t.positions, t.k, t.v, t.out, t.ws];
  const scalars = [t.cells.size, heads, kvHeads, headDim, t.q.stride, slots, context, headDim ** -0.5, prompts ? 1 : 0];
  device.run(OPS.attentionDecode.number, tensors, scalars, STREAM.compute);
}

/** scores f32 [DECODE.sampleParts, rows, 2]: the best of this vocabulary shard's tokens. Temperature 0 is greedy. */
export function sample(
  device: Device,
  t: { logits: Tensor; rows: Tensor; positions: Tensor; floor: Tensor | null; scores: Tensor },
  { vstart, temperature, seed }: { vstart: number; temperature: number; seed: number },
): void {
  const [rows = 0, cols = 0] = t.logits.shape;
  const scalars = [rows, cols, vstart, temperature, seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
  device.run(OPS.sample.number, [t.logits, t.rows, t.positions, t.floor, t.scores], scalars, STREAM.compute);
}

/** tokens i32 [rows] of scores f32 [..., rows, 2]. */
export function samplePick(device: Device, scores: Tensor, tokens: Tensor): void {
  const parts = scores.size / (2 * tokens.size);
  device.run(OPS.samplePick.number, [scores, tokens], [parts, tokens.size], STREAM.compute);
}

/** floor f32 [rows]: the lowest logit that top-k and top-p leave. `logits`: `shards` parts of rows * room elements. */
export function sampleFloor(
  device: Device,
  logits: Tensor,
  floor: Tensor,
  { shards, vocab, room }: { shards: number; vocab: number; room: number },
  { temperature, topK, topP }: { temperature: number; topK: number; topP: number },
): void {
  const scalars = [shards, floor.size, vocab, room, temperature, topK, topP];
  device.run(OPS.sampleFloor.number, [logits, floor], scalars, STREAM.compute);
}
