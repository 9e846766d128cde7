import { dividedKeys } from '../families/parameters.js';
import { fp8LayoutProblems } from './fp8.js';
import { throwProblems, type Problem } from './problem.js';
import type { Origin } from './resolve.js';
import type { ModelConfig, RunConfig } from './schema.js';

export type DeviceKind = 'cpu' | 'cuda';

/** How a configuration spreads over a number of processes. */
export interface RunLayout {
  readonly worldSize: number;
  readonly tp: number;
  readonly cp: number;
  /** Derived: worldSize / (tp * cp * pp). */
  readonly dp: number;
  readonly pp: number;
  /** Chunks a stage; 1 where the schedule is not interleaved. */
  readonly vpp: number;
  readonly ep: number;
  /** Micro-batches of one replica in an update. */
  readonly microBatches: number;
}

/** Parameters and activations are bf16 but in `fp32`; `fp8_mixed` changes products alone. */
export type Precision = Exclude<RunConfig['mixed_precision'], 'auto'>;

/** What `mixed_precision` means on a device. */
export function resolvePrecision(cfg: Pick<RunConfig, 'mixed_precision'>, device: DeviceKind): Precision {
  if (cfg.mixed_precision !== 'auto') return cfg.mixed_precision;
  return device === 'cuda' ? 'bf16_mixed' : 'fp32';
}

/**
 * Checks that `cfg` can run on `worldSize` processes and derives the layout. Throws one MbridgeError (exit code 3) with
 * everything that does not fit. `device` is that of the run where it is known (`dist.device` otherwise); `origins` (of
 * resolve) lets the messages name the places.
 */
export function validateLayout(
  cfg: RunConfig,
  worldSize: number,
  { device, origins }: { device?: DeviceKind; origins?: ReadonlyMap<string, Origin> } = {},
): RunLayout {
  const { model, train } = cfg;
  const tp = model.tensor_model_parallel_size;
  const cp = model.context_parallel_size;
  const pp = model.pipeline_model_parallel_size;
  const ranksOfModel = tp * cp * pp;
  const dp = worldSize / ranksOfModel;
  const vpp = model.virtual_pipeline_model_parallel_size ?? 1;
  const samples = train.micro_batch_size * dp;
  const microBatches = train.global_batch_size / samples;

  const problems = [
    ...modelProblems(cfg.model),
    ...contextParallelProblems(cfg.model),
    ...sequenceParallelProblems(cfg),
    ...fp8LayoutProblems(cfg),
    ...deviceProblems(cfg, device ?? (cfg.dist.device === 'auto' ? undefined : cfg.dist.device)),
  ];
  const bad = badOf(problems);
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    bad('', `${worldSize} processes: start 1 or more (--nproc)`);
  } else if (!Number.isInteger(dp)) {
    const product = `tp ${tp} x ${cp > 1 ? `cp ${cp} x ` : ''}pp ${pp} = ${ranksOfModel}`;
    const advice = worldSize < ranksOfModel ? `start ${ranksOfModel} or a multiple of it` : 'change one of them';
    bad(
      '',
      `${product} does not divide the ${worldSize} processes; ${advice} (--nproc, --tp-size, --cp-size, --pp-size)`,
    );
  } else if (!Number.isInteger(microBatches)) {
    const found = `${train.global_batch_size} is not a multiple of micro_batch_size ${train.micro_batch_size} x dp ${dp}`;
    bad('train.global_batch_size', `${found}; use a multiple of ${samples}`);
  } else if (vpp > 1 && microBatches % pp !== 0) {
    const found = `gives ${microBatches} micro-batches a replica; interleaved stages need a multiple of pp ${pp}`;
    bad('train.global_batch_size', `${found}: use a multiple of ${samples * pp}`);
  }
  const placeOf = (path: string): string | undefined => {
    const source = origins?.get(path);
    return source?.origin === 'derived' ? undefined : source?.place;
  };
  throwProblems(problems.map((problem) => ({ ...problem, place: placeOf(problem.path) })));
  return { worldSize, tp, cp, dp, pp, vpp, ep: model.expert_model_parallel_size, microBatches };
}

function badOf(problems: Problem[]): (path: string, message: string) => void {
  return (path, message) => problems.push({ code: 'MB_CONFIG_LAYOUT', place: undefined, path, message });
}

/**
 * Refuses parallel sizes that the model cannot be cut by, whatever runs on them.
 * @throws MbridgeError MB_CONFIG_LAYOUT, exit 3
 */
export function validateModelLayout(model: ModelConfig): void {
  throwProblems(modelProblems(model));
}

function modelProblems(model: ModelConfig): Problem[] {
  return [...tensorParallelProblems(model), ...pipelineProblems(model)];
}

function tensorParallelProblems(model: ModelConfig): Problem[] {
  const problems: Problem[] = [];
  const bad = badOf(problems);
  const tp = model.tensor_model_parallel_size;
  const divided = dividedKeys(model);
  const odd = divided.filter((key) => model[key] % tp !== 0).map((key) => `model.${key} ${model[key]}`);
  if (odd.length > 0) {
    const allowed = divisors(divided.map((key) => model[key])).join(', ');
    bad('model.tensor_model_parallel_size', `${tp} does not divide ${odd.join(', ')}; this model takes ${allowed}`);
  } else if (tp > model.vocab_size) {
    bad(
      'model.tensor_model_parallel_size',
      `${tp} ranks are more than the ${model.vocab_size} tokens of the vocabulary`,
    );
  }
  return problems;
}

function contextParallelProblems(model: ModelConfig): Problem[] {
  const { context_parallel_size: cp, seq_length: seq } = model;
  const problems: Problem[] = [];
  const bad = badOf(problems);
  if (cp > 1 && model.batch_invariant) {
    bad('model.batch_invariant', `cp ${cp} puts a softmax together from parts; leave cp at 1, or set this to false`);
  }
  // A rank holds two chunks of every sequence.
  if (cp > 1 && seq % (2 * cp) !== 0) {
    const found = `2 x ${cp} chunks do not divide the seq_length of ${seq}`;
    bad('model.context_parallel_size', `${found}; make that a multiple of ${2 * cp}, or change this`);
  }
  return problems;
}

function sequenceParallelProblems({ model, train }: RunConfig): Problem[] {
  const problems: Problem[] = [];
  const bad = badOf(problems);
  const { tensor_model_parallel_size: tp, context_parallel_size: cp } = model;
  const tokens = (model.seq_length * train.micro_batch_size) / cp;
  if (model.sequence_parallel && Number.isInteger(tokens) && tokens % tp !== 0) {
    const over = cp > 1 ? ` / cp ${cp}` : '';
    const found = `${tokens} tokens a micro-batch (seq_length ${model.seq_length} x micro_batch_size ${train.micro_batch_size}${over})`;
    bad('model.sequence_parallel', `tp ${tp} does not divide ${found}; change seq_length or set this to false`);
  }
  return problems;
}

/** The common divisors of `sizes`. */
function divisors(sizes: number[]): number[] {
  const least = Math.min(...sizes);
  return Array.from({ length: least }, (_, i) => i + 1).filter((d) => sizes.every((size) => size % d === 0));
}

function pipelineProblems(model: ModelConfig): Problem[] {
  const problems: Problem[] = [];
  const bad = badOf(problems);
  const layers = model.num_hidden_layers;
  const pp = model.pipeline_model_parallel_size;
  const vpp = model.virtual_pipeline_model_parallel_size ?? 1;
  const first = model.num_layers_in_first_pipeline_stage;
  const last = model.num_layers_in_last_pipeline_stage;
  if (pp > layers) {
    bad('model.pipeline_model_parallel_size', `${pp} stages are more than the ${layers} layers; use at most ${layers}`);
  } else if (vpp > 1 && pp === 1) {
    bad('model.virtual_pipeline_model_parallel_size', `${vpp} chunks a stage need pp of at least 2; leave it unset`);
  } else if (vpp > 1 && layers % (pp * vpp) !== 0) {
    const found = `pp ${pp} x ${vpp} chunks = ${pp * vpp} does not divide the ${layers} layers`;
    bad('model.virtual_pipeline_model_parallel_size', `${found}; interleaved stages need equal chunks`);
  }
  if (first === null && last === null) return problems;
  const path = `model.num_layers_in_${first === null ? 'last' : 'first'}_pipeline_stage`;
  const middle = layers - (first ?? 0) - (last ?? 0);
  const open = pp - (first === null ? 0 : 1) - (last === null ? 0 : 1);
  if (pp === 1) bad(path, 'is for pp of at least 2; leave it unset');
  else if (vpp > 1) bad(path, 'cannot be combined with interleaved stages, whose chunks are equal; leave one unset');
  else if (open === 0 ? middle !== 0 : middle < open) {
    bad(
      path,
      `leaves ${middle} of ${layers} layers to ${open} other stages; each needs at least one and none may be left`,
    );
  }
  return problems;
}

function deviceProblems(cfg: RunConfig, device: DeviceKind | undefined): Problem[] {
  const problems: Problem[] = [];
  const bad = badOf(problems);
  if (device === 'cpu' && cfg.mixed_precision === 'bf16_mixed') {
    bad('mixed_precision', 'bf16_mixed runs on GPUs only; use auto or fp32 on the CPU');
  }
  if (device === 'cpu' && cfg.mixed_precision === 'fp8_mixed') {
    bad(
      'mixed_precision',
      'fp8_mixed runs on GPUs only, whose products of e4m3 it is for; use auto or fp32 on the CPU',
    );
  }
  if (cfg.model.head_dim % 8 !== 0) {
    bad('model.head_dim', `${cfg.model.head_dim} is not a multiple of 8, which the attention needs`);
  }
  if (device === 'cuda' && cfg.ddp.grads_dtype === 'bf16' && resolvePrecision(cfg, device) === 'fp32') {
    bad(
      'ddp.grads_dtype',
      'bf16 gradients on GPUs are of bf16_mixed and fp8_mixed; set mixed_precision, or leave it at fp32',
    );
  }
  if (device === 'cuda' && cfg.model.batch_invariant) problems.push(...batchInvariantProblems(cfg));
  return problems;
}

/** What `model.batch_invariant` does not hold with on a GPU. */
function batchInvariantProblems(cfg: RunConfig): Problem[] {
  const problems: Problem[] = [];
  const bad = (found: string): void => {
    badOf(problems)('model.batch_invariant', `on GPUs it does not hold ${found}; change that, or set this to false`);
  };
  const { head_dim: headDim, tensor_model_parallel_size: tp, sequence_parallel: sequenceParallel } = cfg.model;
  if (resolvePrecision(cfg, 'cuda') === 'fp32') bad('with mixed_precision fp32, only with bf16_mixed');
  if (headDim > 128) bad(`with a head_dim of ${headDim}, only up to 128`);
  // Of two numbers there is one sum; of more, NCCL's order depends on where they lie.
  if (tp > 2 && !(sequenceParallel && cfg.dist.peer_memory)) {
    bad(`at tp ${tp} without model.sequence_parallel and dist.peer_memory`);
  }
  return problems;
}
