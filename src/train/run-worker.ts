import type { Device } from '../engine/device.js';
import type { WorkerContext } from '../job/worker/context.js';
import type { TrainingResult } from '../job/shared/summary-text.js';
import { withCallbacks, type TrainingCallbacks } from './callbacks.js';
import { planRun } from './plan.js';
import { openRun, type OpenRunOptions, type OwnSamples, type Run } from './run.js';
import { samplesOf, type SamplePrompts } from './samples.js';
import { Validation } from './validation.js';

/** What a program brings to the training loop of `mbridge pretrain`. */
export interface TrainingOptions extends OwnSamples, Pick<OpenRunOptions, 'loss' | 'lr'> {
  readonly callbacks?: TrainingCallbacks;
}

/**
 * What one rank of `mbridge pretrain` does.
 * @param options a program's own: samples (`dataset`, `shuffleSeed`) that are read instead of what the configuration's
 * `dataset` names, loss, learning rate, callbacks
 */
export async function runWorker(context: WorkerContext, options: TrainingOptions = {}): Promise<void> {
  const { callbacks = {}, loss, lr, ...samples } = options;
  const told = withCallbacks(context, callbacks, () => run);
  const run = await openRun(told, {
    samples,
    ...(loss === undefined ? {} : { loss }),
    ...(lr === undefined ? {} : { lr }),
  });
  await orAbandon(run, () => callbacks.onTrainStart?.(run));
  const { config: cfg, device, model, data, step: before } = run;
  sayWhatRuns(run);
  const validation = await orAbandon(run, () => Validation.open(run));
  const startS = performance.now() / 1000;
  const evaluate = (step: number): Promise<number> =>
    orAbandon(run, async () => {
      const begin = performance.now();
      await validation?.evaluate(step);
      return (performance.now() - begin) / 1000;
    });
  const evaluatedFirst = cfg.validation.eval_at_start ? await evaluate(run.step) : 0;
  const prompts = (context.options as { readonly samples?: SamplePrompts } | undefined)?.samples;
  const own = (callbacks.every ?? []).map((each) => ({ ...each, act: (step: number) => each.act(step, run) }));
  const trained = await run.train({ every: [...(validation?.every() ?? []), ...samplesOf(run, prompts), ...own] });
  const { step, firstLoss, stopped } = trained;
  await run.finish();
  // A run that was asked to stop ends soon.
  const evaluatedLast = stopped ? 0 : await evaluate(step);
  validation?.close();
  await orAbandon(run, () => callbacks.onTrainEnd?.(trained, run));
  const memory = deviceMemory(device, model.stage.plan.totalBytes, cfg.dist.ranks_per_gpu);
  await run.close();
  const sources = data.progress(step);
  for (const { path, share, samples, epochs } of sources) {
    const part = sources.length > 1 ? ` (${(share * 100).toFixed(2)} %)` : '';
    context.log.info(`${path}: ${samples} samples read${part}, ${epochs.toFixed(2)} epochs`);
  }
  const read = sources.length > 0 ? { sources } : {};
  if (context.rank !== 0) return;
  const evaluated = validation === null ? {} : { validation: validation.results };
  const { updates, data: waited, saves, others } = run.times;
  const result: TrainingResult = {
    ...{ type: 'result', steps: step, loss: trained.loss, ...evaluated, ...memory, ...read },
    first_loss: firstLoss,
    updates: step - before,
    tokens_trained: (step - before) * cfg.train.global_batch_size * cfg.model.seq_length,
    time_s: { start: startS, updates, data: waited, evaluation: others + evaluatedFirst + evaluatedLast, saves },
    peak_memory_bytes: memory['device_bytes'] ?? peakMemory(),
    planned_memory_bytes: plannedMemory(run),
  };
  context.emit(result);
}

/** Of this process. */
function peakMemory(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Of this rank: the arena and, on a GPU, what is allowed for libraries; what saves are staged in, and copies, are memory of the host. */
function plannedMemory({ config: cfg, context: { worldSize, rank }, device }: Run): number {
  const planned = planRun(cfg, worldSize, device.kind).ranks[rank];
  if (planned === undefined) return 0;
  const { totalBytes, runtimeBytes, hostBytes, copyBytes } = planned;
  return totalBytes + (device.kind === 'cuda' ? runtimeBytes : hostBytes + copyBytes);
}

async function orAbandon<T>(run: Run, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    return run.abandon(error);
  }
}

function sayWhatRuns({
  context: { log, rank, again },
  config: cfg,
  layout,
  data,
  device,
  pgCollection: pgs,
  step,
}: Run): void {
  const { tp, cp, dp, pp } = layout;
  const sizes = [`tp ${tp}`, ...(cp > 1 ? [`cp ${cp}`] : []), `dp ${dp}`, `pp ${pp}`].join(', ');
  log.info(`${data.describe()}; ${cfg.train.train_iters} updates on ${sizes}`);
  if (step >= cfg.train.train_iters && rank === 0) {
    if (again) log.info(`all ${step} updates are trained: what is left is the end of the run`);
    else log.warn(`nothing is left to train: the checkpoint has ${step} updates; raise train.train_iters`);
  }
  const wide = [...new Set([pgs.tp, pgs.cp, pgs.dpCp])].filter(({ size }) => size > 1);
  if (device.kind === 'cuda' && wide.length > 0) {
    const ways = wide.map(({ name, sharesMemory }) => `${name} ${sharesMemory ? 'over peer memory' : 'through NCCL'}`);
    log.info(`collectives of ${ways.join(', ')}`);
  }
}

/** What a GPU of its own holds at the end of a run: the plan's arena, and libraries and communicators beside it. */
function deviceMemory(device: Device, arenaBytes: number, ranksPerGpu: number): Record<string, number> {
  if (device.kind === 'cpu' || ranksPerGpu > 1) return { arena_bytes: arenaBytes };
  const { totalBytes, freeBytes } = device.memory();
  const used = totalBytes - freeBytes;
  return { arena_bytes: arenaBytes, runtime_bytes: used - arenaBytes, device_bytes: used };
}
