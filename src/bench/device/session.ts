import type { RunConfig } from '../../config/schema.js';
import { Device } from '../../engine/device.js';
import { loadBinding } from '../../engine/load.js';
import { loadCudaEngine } from '../../engine/open-device.js';
import { Ops } from '../../engine/ops.js';
import { BenchBuffers } from './buffers.js';
import type { CallCost } from './call-cost.js';
import { observedBinding } from './observed-binding.js';
import { DeviceTimer } from './timer.js';

/** A device to measure on. */
export interface BenchSession {
  readonly device: Device;
  readonly ops: Ops;
  readonly timer: DeviceTimer;
  /** What activations and weights are kept in: bf16 on a GPU unless float32 is asked for. */
  readonly act: 'f32' | 'bf16';
  /** Runs `call`, which enqueues one op, and tells what that op must do at least. */
  costOf(call: () => void): CallCost;
}

export function openSession(kind: 'cpu' | 'cuda', threads: number, act: 'f32' | 'bf16'): BenchSession {
  const native = loadBinding();
  if (kind === 'cuda') loadCudaEngine(native);
  // Observing costs time, so it is done for one call only.
  const observed: { on: boolean; cost: CallCost | undefined } = { on: false, cost: undefined };
  const binding = observedBinding(native, ({ cost }, issue) => {
    if (observed.on) observed.cost = cost();
    issue();
  });
  const device = Device.open(binding, kind, 0, threads);
  const costOf = (call: () => void): CallCost => {
    observed.on = true;
    call();
    observed.on = false;
    if (observed.cost === undefined) throw new Error('the call enqueued nothing');
    return observed.cost;
  };
  return { device, ops: new Ops(device), timer: new DeviceTimer(device), act, costOf };
}

/** What the card itself does: the ceilings that the rest is compared with. */
export interface Ceilings {
  /** Device-to-device copy, bytes read and written, GB/s. */
  readonly copyGBs: number;
  readonly copyBytes: number;
  /** TFLOP/s of a large square product in the activations' type. */
  readonly gemmTflops: number;
  readonly gemmSize: number;
}

const CEILING_SIZES = {
  cuda: { copyBytes: 2 ** 32, gemm: { bf16: 8192, f32: 4096 } },
  cpu: { copyBytes: 2 ** 25, gemm: { bf16: 512, f32: 512 } },
} as const;

/** Measures the ceilings, with less memory where the device has less free. */
export function measureCeilings({ device, ops, timer, act }: Omit<BenchSession, 'costOf'>): Ceilings {
  const sizes = CEILING_SIZES[device.kind];
  const copyBytes = Math.min(sizes.copyBytes, 2 ** Math.floor(Math.log2(device.memory().freeBytes / 8)));
  const copies = new BenchBuffers(ops);
  const [from, to] = [0, 1].map(() => copies.random([copyBytes / 4 / 1024, 1024], 'f32'));
  if (from === undefined || to === undefined) throw new Error('no buffers');
  const copy = copies.use(() => timer.measure(() => device.copy(from, to)));
  const n = sizes.gemm[act];
  const products = new BenchBuffers(ops);
  const [a, b, d] = [0, 1, 2].map(() => products.random([n, n], act));
  if (a === undefined || b === undefined || d === undefined) throw new Error('no buffers');
  const gemm = products.use(() => timer.measure(() => ops.linear(a, b, d)));
  return {
    copyGBs: (2 * copyBytes) / copy.median / 1e6,
    copyBytes,
    gemmTflops: (2 * n ** 3) / gemm.median / 1e9,
    gemmSize: n,
  };
}

/** Tokens of one micro-batch of a configuration, on each rank. */
export function tokensOf({ model, train }: RunConfig): number {
  return (model.seq_length * train.micro_batch_size) / model.context_parallel_size;
}
