import { MbridgeError } from '../base/errors.js';
import { didYouMean } from '../base/nearest.js';

/**
 * What a prediction needs to know of a device. Rates are those that our calls reach, not those of a data sheet, where one
 * was measured; bytes and FLOPs are decimal.
 */
export interface DeviceProfile {
  readonly name: string;
  /** What CUDA says that the device has, which is less than its name says. */
  readonly memoryBytes: number;
  /** Dense bf16, as published: what MFU is a part of; 0 where it is not known. */
  readonly peakTflops: number;
  /** Of large matrix products in bf16, and in float32. */
  readonly productTflops: number;
  readonly productTflopsFp32: number;
  /** Of layers' products in e4m3 with scales of blocks; null without. */
  readonly productTflopsFp8: number | null;
  /** Of causal attention over long sequences; of the backward without `model.deterministic`. */
  readonly attentionTflops: { readonly forward: number; readonly backward: number };
  /** Bytes read and written by a copy. */
  readonly memoryGBs: number;
  /** Bytes that a rank of a collective sends: to devices of its node, and to other nodes. */
  readonly nodeGBs: number;
  readonly networkGBs: number;
  /** Devices of a node. */
  readonly perNode: number;
}

// Each with where its figures are from. Rates that nobody here has measured stand in the ratio of the published peaks.

/**
 * NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s, 67 in float32, 3.35 TB/s, NVLink 450 GB/s a direction, and 400 Gbit/s
 * a GPU in a DGX H100. Measured (docs/performance.md): products of Qwen3-4B 700 TFLOP/s at the power limit, a copy
 * 3,025 GB/s; cuDNN's attention 504 and 404 TFLOP/s at 4,096 tokens, 616 and 534 at 32,768.
 * Products of e4m3 through cuBLASLt, 1x128 by 128x128: 1,128 to 1,273, each alone and not in a step.
 */
const H100: DeviceProfile = {
  name: 'h100-80gb',
  memoryBytes: 79.1 * 2 ** 30,
  peakTflops: 989,
  productTflops: 700,
  productTflopsFp32: 50,
  productTflopsFp8: 1150,
  attentionTflops: { forward: 640, backward: 550 },
  memoryGBs: 3025,
  nodeGBs: 300,
  networkGBs: 42,
  perNode: 8,
};

/**
 * NVIDIA's data sheet of the A100 SXM: 312 TFLOP/s, 19.5 in float32, 2.04 TB/s, NVLink 300 GB/s a direction; 200 Gbit/s a
 * GPU in a DGX A100. Attention: the paper of FlashAttention-2 (causal, head width 128). Not measured by us.
 */
const A100: DeviceProfile = {
  name: 'a100-80gb',
  memoryBytes: 79.1 * 2 ** 30,
  peakTflops: 312,
  productTflops: 235,
  productTflopsFp32: 15,
  productTflopsFp8: null,
  attentionTflops: { forward: 220, backward: 190 },
  memoryGBs: 1750,
  nodeGBs: 200,
  networkGBs: 21,
  perNode: 8,
};

const PROFILES: readonly DeviceProfile[] = [
  H100,
  // The same chip with 4.8 TB/s (NVIDIA's data sheet). Measured: products 565 ms of Qwen3-4B's step of 4 micro-batches,
  // 700 TFLOP/s; a copy 4.3 TB/s; a reduce-scatter of 1 GiB 331 GB/s over peer memory; 143,771 MiB by nvidia-smi.
  { ...H100, name: 'h200-141gb', memoryBytes: 139.8 * 2 ** 30, memoryGBs: 4300 },
  A100,
  // The same chip with 1.56 TB/s.
  { ...A100, name: 'a100-40gb', memoryBytes: 39.4 * 2 ** 30, memoryGBs: 1350 },
];

export function profileNames(): string[] {
  return PROFILES.map(({ name }) => name);
}

/** The profile of that name. @throws MbridgeError MB_USAGE (exit 2) with those that there are */
export function findProfile(name: string): DeviceProfile {
  const found = PROFILES.find((profile) => profile.name === name.toLowerCase());
  if (found !== undefined) return found;
  const names = profileNames();
  throw new MbridgeError('usage', 'MB_USAGE', `unknown GPU ${name}${didYouMean(name, names)}`, {
    hint: `there are ${names.join(', ')}`,
  });
}

/** How many bytes two devices of one kind may differ in: of one card, drivers and ECC settings take some. */
const ALIKE = 0.06;

/**
 * The profile of a device that is here, by its name and memory, with the memory that it has; undefined where it is none of
 * ours.
 */
export function profileOf(device: { readonly name: string; readonly totalBytes: number }): DeviceProfile | undefined {
  const found = PROFILES.find(({ name, memoryBytes }) => {
    const [chip = ''] = name.split('-');
    const alike = Math.abs(device.totalBytes / memoryBytes - 1) < ALIKE;
    return alike && device.name.toLowerCase().includes(chip) && !/pcie|nvl/i.test(device.name);
  });
  return found && { ...found, memoryBytes: device.totalBytes };
}
