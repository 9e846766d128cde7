import { MbridgeError } from '../base/errors.js';
import type { Device } from '../engine/device.js';
import type { StageSpec } from '../model/stage/stage-spec.js';

/** Whether cuBLASLt has products of e4m3 with scales of blocks on a GPU: on Hopper alone. */
export function hasFp8(capability: number): boolean {
  return capability === 90;
}

/** MB_FP8_DEVICE, exit 4. @param found what the GPU is, after its name */
export function withoutFp8(name: string, found: string): MbridgeError {
  const text = `mixed_precision fp8_mixed takes a GPU of capability 9.0 (Hopper), ${name} ${found}`;
  return new MbridgeError('environment', 'MB_FP8_DEVICE', text, { hint: 'set mixed_precision=bf16_mixed' });
}

/** @throws MbridgeError MB_FP8_DEVICE, exit 4, where a GPU has none of the products that `fp8_mixed` is made of */
export function refuseWithoutFp8({ fp8 }: Pick<StageSpec, 'fp8'>, { kind, info }: Pick<Device, 'kind' | 'info'>): void {
  if (fp8 === null || kind === 'cpu' || hasFp8(info.capability)) return;
  throw withoutFp8(info.name, `has ${(info.capability / 10).toFixed(1)}`);
}
