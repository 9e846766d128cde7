import type { AttentionSizes } from '../../engine/attention-sizes.js';
import type { Device } from '../../engine/device.js';
import type { ActDType } from '../../engine/dtype.js';

/**
 * Workspace of the attention in bytes: asked of the device, or estimated without one. The estimate is cuDNN's own need
 * as measured on 9.14 and 9.19: row sums, full-head dK and dV, and an fp32 dQ, or in its place, where the result must
 * be deterministic, one bf16 score matrix a head. Where there are other keys than queries a kernel of our own serves.
 */
export function attentionWorkspaceBytes(device: Device | null, dtype: ActDType, sizes: AttentionSizes): number {
  if (device !== null) return device.attentionWorkspace(dtype, sizes).bytes;
  const { batch, seq, heads, kvHeads, headDim, deterministic, keys = seq } = sizes;
  const rows = batch * heads * seq;
  if (dtype === 'f32') return 4 * batch * heads * keys * headDim;
  if (keys !== seq) return 4 * rows;
  const fullHeads = heads === kvHeads ? 0 : 2 * rows * headDim * 2;
  return rows * 4 + fullHeads + (deterministic ? rows * seq * 2 : rows * headDim * 4) + 256;
}
