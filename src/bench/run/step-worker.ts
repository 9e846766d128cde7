import { resolvePrecision } from '../../config/layout.js';
import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { Device } from '../../engine/device.js';
import { loadBinding } from '../../engine/load.js';
import { loadCudaEngine } from '../../engine/open-device.js';
import { Ops } from '../../engine/ops.js';
import { openRun, type Run } from '../../train/run.js';
import type { WorkerContext } from '../../job/worker/context.js';
import { measureCeilings, type Ceilings } from '../device/session.js';
import { StepProfile, type ProfiledCalls } from './step-profile.js';
import { DeviceTimer } from '../device/timer.js';

export interface StepOptions {
  /** Measure every call of one more step, after those that are timed. */
  readonly profile: boolean;
}

/** What a rank says of its memory once it has trained. */
export interface MemoryEvent {
  readonly type: 'memory';
  readonly rank: number;
  /** The plan that the run was refused or started by. */
  readonly plannedBytes: number;
  /** In use on the whole device, libraries and communicators included. */
  readonly usedBytes: number;
  readonly attention: string;
  readonly [key: string]: unknown;
}

export interface ProfileEvent {
  readonly type: 'profile';
  readonly rank: number;
  readonly coordinates: Readonly<Record<string, number>>;
  readonly ceilings: Ceilings;
  readonly calls: readonly ProfiledCalls[];
  readonly [key: string]: unknown;
}

/** Trains as `mbridge pretrain` does, without checkpoints, and measures one step more call by call where asked to. */
export async function runWorker(context: WorkerContext): Promise<void> {
  const { config: cfg, rank } = context;
  const { profile: wanted } = context.options as StepOptions;
  const native = loadBinding();
  if (context.device === 'cuda') loadCudaEngine(native);
  const profile = wanted ? new StepProfile(native) : null;
  const index = context.device === 'cuda' ? context.deviceIndex : 0;
  const device = Device.open(profile?.binding ?? native, context.device, index, context.threads);
  const act = resolvePrecision(cfg, context.device) === 'fp32' ? 'f32' : 'bf16';
  // Before the model takes the memory.
  const ceilings = profile && ceilingsOf(device, act);
  const run = await openRun(context, { device, checkpoints: false });
  await run.train();
  const { model, grid } = run;
  const { totalBytes, freeBytes } = device.memory();
  const memory: MemoryEvent = {
    type: 'memory',
    rank,
    plannedBytes: model.stage.plan.totalBytes,
    usedBytes: totalBytes - freeBytes,
    attention: device.attentionWorkspace(act, model.stage.env.attention[0] as AttentionSizes).kernel,
  };
  context.emit(memory);
  if (profile !== null && ceilings !== null) {
    const calls = profileStep(run, profile);
    const event: ProfileEvent = { type: 'profile', rank, coordinates: grid.coordinates(rank), ceilings, calls };
    context.emit(event);
  }
  await run.close();
}

/** Measures one step after those that were trained. */
function profileStep(run: Run, profile: StepProfile): ProfiledCalls[] {
  const { model, optimizer, data, device, step } = run;
  try {
    profile.attach(device);
    profile.begin();
    model.forwardBackward(data.next(step + 1), { hooks: optimizer.hooks });
    optimizer.step();
    return profile.end();
  } catch (error) {
    run.abandon(error);
  } finally {
    profile.dispose();
  }
}

function ceilingsOf(device: Device, act: 'f32' | 'bf16'): Ceilings {
  const timer = new DeviceTimer(device);
  try {
    return measureCeilings({ device, ops: new Ops(device), timer, act });
  } finally {
    timer.dispose();
  }
}
