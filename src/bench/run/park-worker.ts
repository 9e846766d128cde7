import type { WorkerContext } from '../../job/worker/context.js';
import type { Device } from '../../engine/device.js';
import { MemoryPlan, stateBytes } from '../../engine/memory-plan.js';
import { Tensor } from '../../engine/tensor.js';
import { openRun, type Run } from '../../train/run.js';
import { DeviceTimer, summarize, type Timing } from '../device/timer.js';

export interface ParkBenchOptions {
  /** False for the run to compare with, which is not parked. */
  readonly parks: boolean;
}

/** What a rank measured. Rates are GB/s. */
export interface ParkEvent {
  readonly type: 'parked';
  readonly rank: number;
  readonly stateBytes: number;
  readonly plannedBytes: number;
  /** What the device had free more, or the process less, after a park that had its host memory already. */
  readonly freedBytes: number;
  /** With the host memory taken. */
  readonly firstParkMs: number;
  readonly park: Timing;
  readonly unpark: Timing;
  /** Of one copy between the device and pinned memory: the ceiling. */
  readonly toHostGBs: number;
  readonly toDeviceGBs: number;
  readonly [key: string]: unknown;
}

const ROUNDS = 4;
/** Enough for a copy's full rate. */
const MOST_COPY_BYTES = 2 ** 30;

/** Trains half of the updates, parks and unparks where it is to, and trains the rest. */
export async function runWorker(context: WorkerContext): Promise<void> {
  const { parks } = context.options as ParkBenchOptions;
  const run = await openRun(context, { checkpoints: false });
  await run.train({ until: Math.ceil(run.config.train.train_iters / 2) });
  if (parks) {
    try {
      context.emit(measure(run, context.rank));
    } catch (error) {
      run.abandon(error);
    }
  }
  await run.train();
  await run.close();
}

function measure({ model, device }: Run, rank: number): ParkEvent {
  const { plan, env } = model.stage;
  const plannedBytes = plan.totalBytes;
  const state = stateBytes(plan.byRegion());
  const msOf = (act: () => void): number => {
    device.synchronize();
    const begun = performance.now();
    act();
    device.synchronize();
    return performance.now() - begun;
  };
  const firstParkMs = msOf(() => model.park());
  const rates = copyRates(device, Math.min(state, MOST_COPY_BYTES));
  const [parks, unparks]: [number[], number[]] = [[], []];
  let freedBytes = 0;
  for (let round = 0; round < ROUNDS; round++) {
    // What another model would leave where this one comes back.
    const other = new MemoryPlan();
    const memory = other.tensor('workspace', [Math.floor(plannedBytes / 4)], 'f32');
    other.commit(device);
    env.ops.fill(memory, NaN);
    other.release();
    unparks.push(msOf(() => model.unpark()));
    const before = freeOf(device);
    parks.push(msOf(() => model.park()));
    freedBytes = freeOf(device) - before;
  }
  model.unpark();
  const times = { firstParkMs, park: summarize(parks), unpark: summarize(unparks) };
  return { type: 'parked', rank, stateBytes: state, plannedBytes, freedBytes, ...times, ...rates };
}

/** Grows by what is given back: on a CPU the memory of the machine has other users. */
function freeOf(device: Device): number {
  return device.kind === 'cuda' ? device.memory().freeBytes : -process.memoryUsage().rss;
}

function copyRates(device: Device, bytes: number): { toHostGBs: number; toDeviceGBs: number } {
  const plan = new MemoryPlan();
  const here = plan.tensor('workspace', [bytes], 'u8');
  plan.commit(device);
  const arena = device.createHostArena(bytes);
  const host = new Tensor({ arena, base: 0 }, 0, [bytes], 'u8');
  const timer = new DeviceTimer(device);
  const rate = (from: Tensor, to: Tensor): number => bytes / timer.measure(() => device.copy(from, to)).median / 1e6;
  const rates = { toHostGBs: rate(here, host), toDeviceGBs: rate(host, here) };
  timer.dispose();
  device.freeArena(arena);
  plan.release();
  return rates;
}
