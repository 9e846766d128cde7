import type { Device } from '../engine/device.js';
import type { WorkerContext } from '../job/worker/context.js';
import { openRun, type OwnSamples, type Run } from './run.js';
import { samplesOf, type SamplePrompts } from './samples.js';
import { Validation } from './validation.js';

/**
 * What one rank of `mbridge pretrain` does.
 * @param samples a program's own, read instead of what the configuration's `dataset` names
 */
export async function runWorker(context: WorkerContext, samples: OwnSamples = {}): Promise<void> {
  const run = await openRun(context, { samples });
  const { config: cfg, device, model, data } = run;
  sayWhatRuns(run);
  const validation = await orAbandon(run, () => Validation.open(run));
  if (cfg.validation.eval_at_start) await orAbandon(run, () => validation?.evaluate(run.step));
  const prompts = (context.options as { readonly samples?: SamplePrompts } | undefined)?.samples;
  const { step, loss, stopped } = await run.train({
    every: [...(validation?.every() ?? []), ...samplesOf(run, prompts)],
  });
  await run.finish();
  // A run that was asked to stop ends soon.
  if (!stopped) await orAbandon(run, () => validation?.evaluate(step));
  validation?.close();
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
  context.emit({ type: 'result', steps: step, loss, ...evaluated, ...memory, ...read });
}

async function orAbandon<T>(run: Run, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    return run.abandon(error);
  }
}

function sayWhatRuns({ context: { log }, config: cfg, layout, data, device, pgCollection: pgs, step }: Run): void {
  const { tp, cp, dp, pp } = layout;
  const sizes = [`tp ${tp}`, ...(cp > 1 ? [`cp ${cp}`] : []), `dp ${dp}`, `pp ${pp}`].join(', ');
  log.info(`${data.describe()}; ${cfg.train.train_iters} updates on ${sizes}`);
  if (step >= cfg.train.train_iters) {
    log.warn(`nothing is left to train: the checkpoint has ${step} updates; raise train.train_iters`);
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
