import { CommRuntime } from '../../groups/comm/comm-runtime.js';
import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import { Ops } from '../../engine/ops.js';
import { openDevice } from '../../engine/open-device.js';
import type { Tensor } from '../../engine/tensor.js';
import { NON_MEMBER } from '../../groups/grid/process-group.js';
import type { WorkerContext } from '../../job/worker/context.js';
import { BenchBuffers } from '../device/buffers.js';
import { DeviceTimer, summarize } from '../device/timer.js';

export interface CommOptions {
  /** Bytes of the whole buffer. */
  readonly sizes: readonly number[];
}

/** What a worker reports of one collective at one size. */
export interface CommEvent {
  readonly type: 'comm';
  readonly collective: string;
  readonly bytes: number;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** What each rank's link moves in a direction, by what the collective must send at least, GB/s. */
  readonly busGBs: number;
  readonly [key: string]: unknown;
}

const SAMPLES = 9;
const WARM_UP = 2;

/** Every rank makes the same number of calls, whatever it measures: by size alone. */
function callsFor(bytes: number): number {
  return Math.max(1, Math.min(20, Math.round(2 ** 26 / bytes)));
}

interface Collective {
  readonly name: string;
  /** Bytes that a rank must send for a buffer of one byte. */
  readonly share: (ranks: number) => number;
  readonly run: (group: CommGroup, x: Tensor, own: Tensor, other: Tensor) => void;
}

const COLLECTIVES: readonly Collective[] = [
  {
    name: 'all_reduce',
    share: (n) => (2 * (n - 1)) / n,
    // Of the maximum, so that values stay in range however often it is done.
    run: (group, x) => {
      group.allReduce(x, 'max');
    },
  },
  {
    name: 'reduce_scatter',
    share: (n) => (n - 1) / n,
    run: (group, x, own) => {
      group.reduceScatter(x, own);
    },
  },
  {
    name: 'all_gather',
    share: (n) => (n - 1) / n,
    run: (group, x, own) => {
      group.allGather(own, x);
    },
  },
  {
    name: 'send+receive',
    share: () => 1,
    run: (group, x, _, other) => {
      const { rank, size } = group;
      const [next, previous] = [(rank + 1) % size, (rank + size - 1) % size];
      group.exchange(
        [
          { kind: 'send', peer: next, tensor: x },
          { kind: 'receive', peer: previous, tensor: other },
        ],
        STREAM.compute,
      );
    },
  },
];

/** Runs every collective over all ranks at every size; rank 0 reports what it measured. */
export async function runWorker(context: WorkerContext): Promise<void> {
  const { rank, worldSize, store, config } = context;
  const { sizes } = context.options as CommOptions;
  const device = openDevice(context.device, context.deviceIndex, context.threads);
  const runtime = new CommRuntime({ rank, device, store, timeoutSeconds: config.dist.timeout_s });
  try {
    const ranks = Array.from({ length: worldSize }, (_, i) => i);
    const group = await runtime.createGroups('bench', [ranks]);
    if (group === NON_MEMBER) throw new Error('every rank is in the group');
    runtime.watch();
    const timer = new DeviceTimer(device);
    for (const bytes of sizes) {
      for (const collective of COLLECTIVES) {
        const event = measure(device, timer, group, collective, bytes, config.dist.peer_memory);
        if (rank === 0) context.emit(event);
      }
    }
    timer.dispose();
    runtime.destroyAll();
    device.close();
  } catch (error) {
    runtime.abandon(error);
  }
}

function measure(
  device: Device,
  timer: DeviceTimer,
  group: CommGroup,
  collective: Collective,
  bytes: number,
  sharing: boolean,
): CommEvent {
  const dtype = device.kind === 'cuda' ? 'bf16' : 'f32';
  const ops = new Ops(device);
  const buffers = new BenchBuffers(ops);
  const piece = Math.ceil(bytes / (dtype === 'bf16' ? 2 : 4) / group.size);
  const x = buffers.random([group.size, piece], dtype);
  const [own, other] = [buffers.random([1, piece], dtype), buffers.random([group.size, piece], dtype)];
  const calls = callsFor(bytes);
  const sample = (): number => {
    group.barrier();
    return timer.sample(calls, () => collective.run(group, x, own, other));
  };
  const measureAll = (): number[] => Array.from({ length: WARM_UP + SAMPLES }, sample).slice(WARM_UP);
  const times = buffers.use(measureAll, sharing ? group : null);
  const { median, min, max } = summarize(times, calls);
  const busGBs = (x.bytes * collective.share(group.size)) / median / 1e6;
  return { type: 'comm', collective: collective.name, bytes: x.bytes, median, min, max, busGBs };
}
