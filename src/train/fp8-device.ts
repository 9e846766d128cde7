import { MbridgeError } from '../base/errors.js';
import type { Device } from '../engine/device.js';
import type { StageSpec } from '../model/stage/stage-spec.js';

/** The first GPUs with products of e4m3 in blocks: Hopper's. */
const CAPABILITY = 90;

/** @throws MbridgeError MB_FP8_DEVICE, exit 4, where a GPU has none of the products that `fp8_mixed` is made of */
export function refuseWithoutFp8({ fp8 }: Pick<StageSpec, 'fp8'>, { kind, info }: Pick<Device, 'kind' | 'info'>): void {
  if (fp8 === null || kind === 'cpu' || info.capability >= CAPABILITY) return;
  const found = `mixed_precision fp8_mixed takes a GPU of capability 9.0 or above, ${info.name} has ${(info.capability / 10).toFixed(1)}`;
  throw new MbridgeError('environment', 'MB_FP8_DEVICE', found, { hint: 'set mixed_precision=bf16_mixed' });
}
