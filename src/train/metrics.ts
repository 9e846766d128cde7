import type { DeviceKind } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import type { Device } from '../engine/device.js';
import { gpusFor } from '../engine/devices.js';
import { STATE } from '../engine/ops.js';
import { modelShape } from '../families/model-shape.js';
import { stepFlops } from '../families/flops.js';
import type { OptimizerState } from '../model/optim/optimizer-state.js';
import type { StepEvent } from '../job/shared/messages.js';

/** What the device says of a finished update. Equal on every rank of the model. */
export interface StepResult {
  readonly step: number;
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  /** Counted tokens of the global batch. */
  readonly tokens: number;
  readonly skipped: boolean;
  readonly skippedInRow: number;
  /** Updates applied so far. */
  readonly updates: number;
  /** Ranks that want to stop. */
  readonly stopVotes: number;
}

/** Asks for an update's numbers without stopping the device; await the result a step later. */
export function fetchStep(device: Device, state: OptimizerState, step: number): Promise<StepResult> {
  const scalars = device.fetch(state.scalars);
  const sums = device.fetch(state.sums);
  return Promise.all([scalars, sums]).then(([a, b]) => {
    const s = new Float64Array(a.buffer, a.byteOffset, STATE.length);
    const votes = new Float32Array(b.buffer, b.byteOffset, 4)[3] ?? 0;
    const at = (index: number): number => s[index] ?? NaN;
    return {
      step,
      loss: at(STATE.loss),
      gradNorm: at(STATE.gradNorm),
      lr: at(STATE.lr),
      tokens: at(STATE.tokens),
      skipped: at(STATE.skip) !== 0,
      skippedInRow: at(STATE.skippedInRow),
      updates: at(STATE.step),
      stopVotes: votes,
    };
  });
}

/** Processes of the CPU, or GPUs, that `ranks` run on: what rates are given by. */
export function devicesOf({ dist }: RunConfig, ranks: number, device: DeviceKind): number {
  return device === 'cuda' ? gpusFor(ranks, dist.ranks_per_gpu) : ranks;
}

/** The step line: the device's numbers with throughput, by Megatron's FLOP formula. */
export function stepEvent(
  cfg: RunConfig,
  result: StepResult,
  run: { milliseconds: number; devices: number; peakTflops: number; epoch: number },
): StepEvent {
  const { global_batch_size: batch } = cfg.train;
  const { seq_length: seq } = cfg.model;
  const seconds = run.milliseconds / 1000;
  const tflops = stepFlops(modelShape(cfg), seq, batch) / (seconds * run.devices * 1e12);
  return {
    type: 'step',
    step: result.step,
    loss: result.loss,
    grad_norm: result.gradNorm,
    lr: result.lr,
    tokens: result.tokens,
    step_time_ms: run.milliseconds,
    tokens_per_s_per_gpu: (batch * seq) / (seconds * run.devices),
    tflops_per_gpu: tflops,
    ...(run.peakTflops > 0 ? { mfu: tflops / run.peakTflops } : {}),
    ...(run.epoch > 0 ? { epoch: run.epoch } : {}),
    ...(result.skipped ? { skipped: true } : {}),
  };
}
