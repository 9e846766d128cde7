import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { Device } from '../../engine/device.js';
import type { ActDType } from '../../engine/dtype.js';

/** Scores that the deterministic backward keeps at most, if it can by taking heads in turn: attention.cc's kMostScoreBytes. */
const MOST_SCORE_BYTES = 1.5 * 2 ** 30;

/**
 * Workspace of the attention in bytes: asked of the device, or estimated without one. The estimate is cuDNN's own need
 * as measured on 9.14 and 9.19: row sums, full-head dK and dV, and an fp32 dQ, or in its place, where the result must
 * be deterministic, one bf16 score matrix a head.
 * @param documents whether they are kept apart: a kernel of our own serves then, which keeps a sum a row
 */
export function attentionWorkspaceBytes(
  device: Device | null,
  dtype: ActDType,
  sizes: AttentionSizes,
  documents: boolean,
): number {
  const { batch, seq, heads, kvHeads, headDim, deterministic, keys = seq } = sizes;
  if (documents && dtype === 'bf16') return 4 * batch * heads * seq;
  if (device !== null) return device.attentionWorkspace(dtype, sizes).bytes;
  if (dtype === 'f32') return 4 * batch * heads * keys * headDim;
  const scores = batch * heads * seq * keys * 2;
  const divisors = Array.from({ length: kvHeads }, (_, i) => i + 1).filter((passes) => kvHeads % passes === 0);
  const fits = divisors.find((passes) => scores / passes <= MOST_SCORE_BYTES) ?? kvHeads;
  const passes = deterministic ? fits : 1;
  const rows = (batch * heads * seq) / passes;
  const fullHeads = heads === kvHeads ? 0 : (2 * batch * heads * keys * headDim * 2) / passes;
  return rows * 4 + fullHeads + (deterministic ? scores / passes : rows * headDim * 4) + 256;
}
