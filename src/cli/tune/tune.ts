import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import { eventJson } from '../../outputs/line.js';
import type { Ranking } from '../../plan/rank-settings.js';
import { PROFILE_FLAG } from '../shared/plan-target.js';
import { addRunOptions, parseCount, resolveRequest, type RunOptions, type RunRequest } from '../shared/run-options.js';
import type { Outcome } from './measure.js';
import type { TuneTarget } from './tune-target.js';
import type { TuneReport } from './tune-text.js';

interface TuneFlags extends RunOptions {
  readonly deviceProfile?: string;
  readonly nnodes?: number;
  readonly measure: boolean;
  readonly best: number;
  readonly runs: number;
  readonly steps: number;
}

const NOTES = `
Tried are tp, pp, vp, cp (of long sequences), micro-batch, recompute and sharding; what a flag or section.key=value sets stays,
and so do the global batch and the precision. The fastest by the plan and a prediction are then run for some updates on the
devices of this machine; Ctrl-C ends that with what is known so far.

Examples:
  mbridge tune qwen3-4b --nproc 8                                     on the GPUs here
  mbridge tune qwen3-32b --nproc 8 --nnodes 8 --gpu h100-80gb         for 64 that are elsewhere
  mbridge tune qwen3-4b --nproc 8 --tp 2 train.global_batch_size=64   of those with tp 2`;

/** `mbridge tune`: the fastest setting of a run that fits. */
export function addTune(program: Command): void {
  addRunOptions(program.command('tune'))
    .description('find the fastest layout, micro-batch, recompute and sharding of a run that fit')
    .option('--nnodes <m>', 'nodes of --nproc processes each; more than one are predicted, not measured', parseCount)
    .option(PROFILE_FLAG, 'rank for such GPUs (h100-80gb, ...) by the prediction alone')
    .option('--no-measure', 'by the prediction alone')
    .option('--best <n>', 'settings that are shown', parseCount, 8)
    .option('--runs <n>', 'of these, how many are run', parseCount, 4)
    .option('--steps <n>', 'updates that are timed in each run, after 2 more', parseCount, 5)
    .addHelpText('after', NOTES)
    .action(tune);
}

/** What a signal has asked: the exit code that it gives, or 0. */
interface Stop {
  code: number;
}

async function tune(args: string[], options: TuneFlags): Promise<void> {
  const { takeEarlySignals } = await import('../../base/early-signals.js');
  const { listenForSignals, signalExitCode } = await import('../../job/shared/stop-signals.js');
  takeEarlySignals();
  const request = await resolveRequest(args, options);
  const stop: Stop = { code: 0 };
  const stopListening = listenForSignals((signal) => (stop.code = signalExitCode(signal)));
  try {
    await tuneRequest(args, options, request, stop);
  } finally {
    stopListening();
  }
  if (stop.code > 0) process.exitCode = stop.code;
}

async function tuneRequest(args: string[], options: TuneFlags, request: RunRequest, stop: Stop): Promise<void> {
  const { defaultProcesses, chooseDevice } = await import('../../engine/devices.js');
  const { tuneTarget } = await import('./tune-target.js');
  const { tuneJson, tuneText, inOrder, commandOf } = await import('./tune-text.js');
  const { config, name } = request;
  const { nnodes: nodes = 1, deviceProfile: profile, json = false } = options;
  if (profile !== undefined && config.dist.device === 'cpu') {
    const { MbridgeError } = await import('../../base/errors.js');
    const hint = 'leave --device cpu out, or --gpu';
    throw new MbridgeError('usage', 'MB_USAGE', `--gpu ${profile} for a run on the CPU`, { hint });
  }
  const kind = profile === undefined ? chooseDevice(config) : 'cuda';
  const nproc = options.nproc ?? defaultProcesses(kind, config.dist.ranks_per_gpu);
  const began = performance.now();
  const target = await tuneTarget({ config, nproc, nodes, profile });
  const ranking = await search(request, target, { nproc, nodes, count: options.best }, stop);
  const seconds = (performance.now() - began) / 1000;
  const tried = target.here && options.measure ? await run(ranking, request, target, { ...options, nproc }, stop) : [];
  const failed = tried.length > 0 && tried.every(({ kind }) => kind === 'failed');
  const report: TuneReport = {
    ...{ name, device: target.profile.name, ranks: nproc * nodes, config, ranking, seconds },
    settings: inOrder(ranking.fitting.map((ranked, i) => ({ ranked, outcome: tried[i] }))),
    failed,
    command: commandOf(args, { ...options, nproc }),
  };
  const interrupted = stop.code > 0;
  process.stdout.write(json ? `${eventJson(tuneJson(report, interrupted))}\n` : tuneText(report, interrupted));
  const [first] = tried;
  if (failed && first?.kind === 'failed') process.exitCode = first.exitCode;
}

/** @throws MbridgeError MB_CONFIG_LAYOUT where the model or the batch cannot be cut so, MB_MEMORY_PLAN where nothing fits */
async function search(
  { config, origins }: RunRequest,
  { kind, profile, limit }: TuneTarget,
  { nproc, nodes, count }: { readonly nproc: number; readonly nodes: number; readonly count: number },
  stop: Stop,
): Promise<Ranking> {
  const { possibleSettings } = await import('../../plan/settings.js');
  const { rankSettings } = await import('../../plan/rank-settings.js');
  const { MbridgeError } = await import('../../base/errors.js');
  const worldSize = nproc * nodes;
  const candidates = possibleSettings({ config, origins, worldSize, perNode: nproc, device: kind });
  if (candidates.length === 0) {
    const { validateLayout } = await import('../../config/layout.js');
    // Says why, where it is the setting that was asked for.
    validateLayout(config, worldSize, { device: kind, origins });
    const found = `no layout of ${worldSize} ranks divides a global batch of ${config.train.global_batch_size}`;
    throw new MbridgeError('config', 'MB_CONFIG_LAYOUT', found, { hint: 'change train.global_batch_size or --nproc' });
  }
  const stopped = async (): Promise<boolean> => {
    await setImmediate(); // signals come in between
    return stop.code > 0;
  };
  const ranking = await rankSettings(candidates, profile, kind, limit, count, stopped);
  if (ranking.fitting.length > 0 || stop.code > 0) return ranking;
  const { gib } = await import('../../train/memory-check.js');
  const least =
    ranking.smallest === null ? '' : `: the smallest of those planned needs ${gib(ranking.smallest.neededBytes)}`;
  const found = `no setting of ${worldSize} ranks fits ${gib(limit.usableBytes)} of ${profile.name}${least}`;
  throw new MbridgeError('environment', 'MB_MEMORY_PLAN', found, {
    hint:
      kind === 'cpu'
        ? 'take a smaller recipe, or plan for GPUs: --gpu h100-80gb'
        : 'use more ranks, GPUs with more memory (--gpu), or a smaller model.seq_length',
  });
}

/** Runs the first of the ranking; what comes of them, as far as it gets. */
async function run(
  { fitting }: Ranking,
  { name }: RunRequest,
  target: TuneTarget,
  { nproc, runs, steps, json = false }: TuneFlags & { readonly nproc: number },
  stop: Stop,
): Promise<Outcome[]> {
  const { measureSetting } = await import('./measure.js');
  const { settingText } = await import('./tune-text.js');
  const outcomes: Outcome[] = [];
  for (const [i, ranked] of fitting.slice(0, runs).entries()) {
    if (stop.code > 0) break;
    const count = Math.min(runs, fitting.length);
    if (!json) process.stderr.write(`running ${i + 1} of ${count}: ${settingText(ranked)}\n`);
    const outcome = await measureSetting(ranked, { name, nproc, device: target.kind, steps });
    if (outcome.kind === 'stopped') stop.code ||= outcome.exitCode;
    outcomes.push(outcome);
  }
  return outcomes;
}
