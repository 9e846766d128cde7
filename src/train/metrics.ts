import type { DeviceKind } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import { gpusFor } from '../engine/devices.js';
import { STATE } from '../engine/ops.js';
import { modelShape } from '../families/model-shape.js';
import { adaptersOf } from '../families/adapters.js';
import { stepFlops } from '../families/flops.js';
import type { DistributedOptimizer } from '../model/optim/distributed-optimizer.js';
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
  /** Pairs of a token and one that it sees, itself counted half; null where documents are not kept apart. */
  readonly attentionPairs: number | null;
  /** What a loss of one's own added up, by name. */
  readonly totals: Readonly<Record<string, number>>;
}

/** Asks for an update's numbers without stopping the device; await the result a step later. */
export async function fetchStep({ totals, ops }: DistributedOptimizer, step: number): Promise<StepResult> {
  const { totals: sums, state } = await totals.fetch(ops);
  const at = (index: number): number => state[index] ?? NaN;
  return {
    step,
    loss: at(STATE.loss),
    gradNorm: at(STATE.gradNorm),
    lr: at(STATE.lr),
    tokens: at(STATE.tokens),
    skipped: at(STATE.skip) !== 0,
    skippedInRow: at(STATE.skippedInRow),
    updates: at(STATE.step),
    stopVotes: sums['stop_votes'] ?? 0,
    attentionPairs: sums['attention_pairs'] ?? null,
    totals: lossTotals(sums),
  };
}

/** Totals that every step has. */
const COMMON: readonly string[] = ['loss', 'tokens', 'grad_norm_squared', 'stop_votes', 'attention_pairs'];

/** Of a step's totals, those that its loss added. */
export function lossTotals(totals: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(totals).filter(([name]) => !COMMON.includes(name)));
}

/** Processes of the CPU, or GPUs, that `ranks` run on: what rates are given by. */
export function devicesOf({ dist }: RunConfig, ranks: number, device: DeviceKind): number {
  return device === 'cuda' ? gpusFor(ranks, dist.ranks_per_gpu) : ranks;
}

/** What the host knows of an update beside its result. */
export interface StepFacts {
  readonly milliseconds: number;
  readonly dataMs: number;
  readonly devices: number;
  readonly peakTflops: number;
  readonly epoch: number;
  /** ISO 8601. */
  readonly time: string;
  /** Since the first update of this process was begun, and until the last at that pace. */
  readonly elapsedS: number;
  readonly etaS: number;
  readonly memoryBytes: number;
}

/** The step line: the device's numbers with throughput, by Megatron's FLOP formula over the attention that is done. */
export function stepEvent(cfg: RunConfig, result: StepResult, run: StepFacts): StepEvent {
  const { global_batch_size: batch } = cfg.train;
  const { seq_length: seq } = cfg.model;
  const seconds = run.milliseconds / 1000;
  const work = { pairs: result.attentionPairs ?? undefined, adapters: adaptersOf(cfg.peft) };
  const flops = stepFlops(modelShape(cfg), seq, batch, work);
  const tflops = flops / (seconds * run.devices * 1e12);
  return {
    type: 'step',
    step: result.step,
    loss: result.loss,
    grad_norm: result.gradNorm,
    lr: result.lr,
    tokens: result.tokens,
    step_time_ms: run.milliseconds,
    data_ms: run.dataMs,
    tokens_per_s_per_device: (batch * seq) / (seconds * run.devices),
    tflops_per_device: tflops,
    ...(run.peakTflops > 0 ? { mfu: tflops / run.peakTflops } : {}),
    tokens_seen: result.step * batch * seq,
    memory_bytes: run.memoryBytes,
    time: run.time,
    elapsed_s: Math.round(run.elapsedS * 1000) / 1000,
    eta_s: Math.round(run.etaS * 1000) / 1000,
    ...(run.epoch > 0 ? { epoch: run.epoch } : {}),
    ...(result.skipped ? { skipped: true } : {}),
    ...(Object.keys(result.totals).length > 0 ? { totals: result.totals } : {}),
  };
}
