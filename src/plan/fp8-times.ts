import type { RunConfig } from '../config/schema.js';
import { withoutFp8 } from '../train/fp8-device.js';
import type { DeviceProfile } from './device-profiles.js';

/** What of a model's layers has products in e4m3. */
export interface Fp8Work {
  /** The part of the layers, of all of the model's; stages are taken for alike. */
  readonly share: number;
  readonly wgrad: boolean;
}

/** Null where nothing has. */
export function fp8Work({ mixed_precision: precision, model }: RunConfig): Fp8Work | null {
  if (precision !== 'fp8_mixed') return null;
  const { num_hidden_layers: layers, fp8_wgrad: wgrad } = model;
  return { share: fp8Layers(model, layers) / layers, wgrad };
}

/** How many of `layers` in a row have products in e4m3, where both ends of the model are among them. */
export function fp8Layers(model: Pick<RunConfig['model'], 'fp8_first_last_layers_bf16'>, layers: number): number {
  return Math.max(0, layers - 2 * model.fp8_first_last_layers_bf16);
}

/** TFLOP/s of a layer's product. @throws MbridgeError MB_FP8_DEVICE, exit 4, for a device that has none of e4m3 */
export function fp8Rate({ name, productTflops, productTflopsFp8 }: DeviceProfile, { share }: Fp8Work): number {
  if (productTflopsFp8 === null) throw withoutFp8(name, 'is another');
  return 1 / (share / productTflopsFp8 + (1 - share) / productTflops);
}

/** Elements of the activations of a layer on a rank. */
export interface LayerWidths {
  readonly hidden: number;
  readonly q: number;
  readonly qkv: number;
  readonly ffn: number;
}

/** Bytes that quantising a layer's activations and gradients moves, beside what the layer moves anyway. */
export function quantisedBytes({ share, wgrad }: Fp8Work, w: LayerWidths): { forward: number; backward: number } {
  // bf16 is read, and a byte written in each orientation. With wgrad SwiGLU does it in passing, both ways; attention's output
  // is kept as it is, and read again.
  const [once, both] = [3, 4];
  const each = wgrad ? both : once;
  return {
    forward: share * (each * 2 * w.hidden + once * w.q + (wgrad ? 0 : once * w.ffn)),
    backward: share * (each * (2 * w.hidden + w.qkv) + (wgrad ? once * w.q : once * 2 * w.ffn)),
  };
}

/** Bytes a parameter of such a layer that quantising it moves, once an update: bf16, and e4m3 in both orientations. */
export const QUANTISED_WEIGHT = 4;
/** Kernels more of a layer's passes. */
export const QUANTISE_CALLS = { forward: 3, backward: 4 } as const;
