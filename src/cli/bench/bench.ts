import type { Command } from 'commander';
import type { GenerateBenchOptions, GenerateEvent } from '../../bench/run/generate-worker.js';
import { EXIT } from '../../base/errors.js';
import type { ParkEvent } from '../../bench/run/park-worker.js';
import type { LogprobsBenchOptions, LogprobsEvent } from '../../bench/run/logprobs-worker.js';
import type { CommEvent } from '../../bench/run/comm-worker.js';
import type { RunConfig } from '../../config/schema.js';
import type { SingleBench } from '../../bench/device/single.js';
import type { BenchRun } from './launch.js';
import type { BenchReport, Findings } from './report.js';
import { eventJson, outputLine } from '../../outputs/line.js';
import { addBenchCheck } from './check.js';
import { addRunOptions, parseBytes, parseCount, resolveRequest, type RunOptions } from '../shared/run-options.js';

/** Those of one device: what they measure. */
const SINGLE: Readonly<Record<SingleBench, string>> = {
  gemm: "the model's matrix products, forward and backward, against a large one",
  attention: 'attention forward and backward, deterministic or not, of packed sequences',
  ops: 'the other ops that move most bytes, against the time to move them',
  bound: 'products and attention of one micro-batch: what no run can beat',
};

/** Without a recipe: a model that fills a GPU, and one that is quick on a CPU. */
const DEFAULT_RECIPE = { cuda: 'qwen3-4b', cpu: 'qwen3-tiny' } as const;

/** Bytes of the buffers: [smallest, largest]. */
const COMM_SIZES = { cuda: [2 ** 16, 2 ** 30], cpu: [2 ** 14, 2 ** 22] } as const;

interface BenchFlags extends RunOptions {
  readonly record?: string;
}

interface StepFlags extends BenchFlags {
  readonly steps: number;
  readonly warmup: number;
  readonly profile?: boolean;
}

interface GenerateFlags extends BenchFlags, GenerateBenchOptions {}

interface ParkFlags extends BenchFlags {
  readonly steps: number;
}

interface LogprobsFlags extends BenchFlags, LogprobsBenchOptions {}

interface CommFlags extends BenchFlags {
  readonly largest?: number;
}

/** `mbridge bench`: how fast this machine is, and how near to that we come. */
export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .description('measure products, attention, ops, collectives and steps')
    .addHelpText('after', `\nWithout a recipe: ${DEFAULT_RECIPE.cuda} on GPUs, ${DEFAULT_RECIPE.cpu} on a CPU.`);
  for (const [name, description] of Object.entries(SINGLE) as [SingleBench, string][]) {
    addRunOptions(bench.command(name))
      .description(description)
      .action((args: string[], options: BenchFlags) => benchDevice(name, args, options));
  }
  addRunOptions(bench.command('comm'))
    .description('collectives over all ranks')
    .option('--largest <bytes>', 'largest buffer; default 1 GiB on GPUs, 4 MiB on a CPU', parseBytes)
    .action(benchComm);
  addRunOptions(bench.command('step'))
    .description('a training run: time of a step, tokens a second, memory')
    .option('--steps <n>', 'steps that are timed', parseCount, 20)
    .option('--warmup <n>', 'steps before them', parseCount, 5)
    .option('--profile', 'measure one more step call by call')
    .action(benchStep);
  addRunOptions(bench.command('generate'))
    .description('generation: time of a step and tokens a second, against the time to read weights and cache')
    .option('--rows <n>', 'rows at once on each replica', parseCount, 8)
    .option('--prompt-tokens <n>', 'tokens of each prompt', parseCount, 128)
    .option('--tokens <n>', 'tokens that are made of each row', parseCount, 128)
    .action(benchGenerate);
  addRunOptions(bench.command('park'))
    .description('a model parked in host memory and back: time, memory given back, and the losses afterwards')
    .option('--steps <n>', 'updates, half of them before', parseCount, 6)
    .action(benchPark);
  addRunOptions(bench.command('logprobs'))
    .description('log-probabilities of sampled tokens against those of the training forward')
    .option('--rows <n>', 'rows at once on each replica', parseCount, 64)
    .option('--tokens <n>', 'tokens that each replica samples at least', parseCount, 10_000)
    .action(benchLogprobs);
  for (const command of bench.commands) command.option('--record <file>', 'also append the JSON to a file');
  addBenchCheck(bench);
}

/** @param subject one device as a rank of the layout uses it, collectives over processes, or a training run */
async function prepare(
  args: readonly string[],
  options: BenchFlags,
  subject: 'device' | 'collectives' | 'training',
): Promise<{ config: RunConfig; device: 'cpu' | 'cuda'; nproc: number; name: string }> {
  if (options.record !== undefined) await record(options.record, ''); // before any time is spent
  const { isOverride } = await import('../../config/overrides.js');
  const { validateLayout } = await import('../../config/layout.js');
  const { chooseDevice, defaultProcesses, requireDevices } = await import('../../engine/devices.js');
  const named = (args[0] !== undefined && !isOverride(args[0])) || options.config !== undefined;
  const wanted = options['device'];
  const fallback = wanted === 'cpu' || wanted === 'cuda' ? wanted : chooseDevice({ dist: { device: 'auto' } });
  const request = await resolveRequest(named ? args : [DEFAULT_RECIPE[fallback], ...args], options);
  const device = chooseDevice(request.config);
  const {
    tensor_model_parallel_size: tp,
    context_parallel_size: cp,
    pipeline_model_parallel_size: pp,
  } = request.config.model;
  const model = tp * cp * pp;
  const { ranks_per_gpu: ranksPerGpu } = request.config.dist;
  const nproc =
    subject === 'device' ? model : (options.nproc ?? Math.max(defaultProcesses(device, ranksPerGpu), model));
  requireDevices(device, subject === 'device' ? 1 : nproc, ranksPerGpu);
  if (subject !== 'collectives') validateLayout(request.config, nproc, { device, origins: request.origins });
  return { config: request.config, device, nproc, name: request.name };
}

async function benchDevice(bench: SingleBench, args: string[], options: BenchFlags): Promise<void> {
  const { measureDevice } = await import('../../bench/device/single.js');
  const { deviceFindings } = await import('./device-tables.js');
  const { config, device: kind } = await prepare(args, options, 'device');
  const { command, version } = await facts();
  const measured = measureDevice(bench, config, kind, version);
  const { device, versions, ceilings } = measured;
  const head = { bench, command, date: new Date().toISOString(), device, versions, ceilings };
  await print({ ...head, ...deviceFindings(bench, measured, config) }, options);
}

async function benchComm(args: string[], options: CommFlags): Promise<void> {
  const { runBench } = await import('./launch.js');
  const { eventsOf } = await import('../../bench/run/worker-events.js');
  const { commFindings } = await import('./run-tables.js');
  const { config, device, nproc, name } = await prepare(args, options, 'collectives');
  if (nproc === 1) {
    const { MbridgeError } = await import('../../base/errors.js');
    throw new MbridgeError('usage', 'MB_USAGE', 'one process has no collectives to measure', {
      hint: 'start more: --nproc 2',
    });
  }
  const [smallest, most] = COMM_SIZES[device];
  const largest = options.largest ?? most;
  const sizes: number[] = [];
  for (let bytes = Math.min(smallest, largest); bytes <= largest; bytes *= 4) sizes.push(bytes);
  const module = 'bench/run/comm-worker.js';
  const { exitCode, result, events } = await runBench({ module, name, config, nproc, device, options: { sizes } });
  if (exitCode !== 0) printFailure(result, options);
  else {
    const findings = commFindings(eventsOf<CommEvent>(events, 'comm'), nproc);
    await print({ ...(await launchedReport('comm', device)), ...findings }, options);
  }
  process.exitCode = exitCode;
}

async function benchStep(args: string[], options: StepFlags): Promise<void> {
  const { runBench } = await import('./launch.js');
  const { summarizeSteps } = await import('../../bench/run/step-summary.js');
  const { devicesOf } = await import('../../train/metrics.js');
  const { stepFindings } = await import('./run-tables.js');
  const { planRun } = await import('../../train/plan.js');
  const { checkMachineMemory } = await import('../../train/machine-memory.js');
  const { steps, warmup, profile = false } = options;
  const prepared = await prepare(args, options, 'training');
  const { device, nproc, name } = prepared;
  const { train, logger } = prepared.config;
  const config: RunConfig = {
    ...prepared.config,
    train: { ...train, train_iters: warmup + steps },
    // Every step is counted.
    logger: { ...logger, log_interval: 1 },
  };
  checkMachineMemory(planRun(config, nproc, device), nproc);
  const module = 'bench/run/step-worker.js';
  const { exitCode, result, events } = await runBench({ module, name, config, nproc, device, options: { profile } });
  if (exitCode !== 0) printFailure(result, options);
  else {
    const summary = summarizeSteps(config, devicesOf(config, nproc, device), events, warmup);
    const findings = stepFindings(config, nproc, summary, warmup);
    await print({ ...(await launchedReport('step', device)), ...findings }, options);
  }
  process.exitCode = exitCode;
}

async function benchGenerate(args: string[], options: GenerateFlags): Promise<void> {
  const { runBench } = await import('./launch.js');
  const { eventsOf } = await import('../../bench/run/worker-events.js');
  const { generationFindings } = await import('./generation.js');
  const { rows, promptTokens, tokens } = options;
  const { config, device, nproc, name } = await prepare(args, options, 'training');
  const given = { rows, promptTokens, tokens };
  const module = 'bench/run/generate-worker.js';
  const { exitCode, result, events } = await runBench({ module, name, config, nproc, device, options: given });
  if (exitCode !== 0) printFailure(result, options);
  else {
    const findings = generationFindings(eventsOf<GenerateEvent>(events, 'generated'), given);
    await print({ ...(await launchedReport('generate', device)), ...findings }, options);
  }
  process.exitCode = exitCode;
}

async function benchPark(args: string[], options: ParkFlags): Promise<void> {
  const { runBench } = await import('./launch.js');
  const { eventsOf } = await import('../../bench/run/worker-events.js');
  const { differingUpdates, parkFindings } = await import('./park.js');
  const { config: given, device, nproc, name } = await prepare(args, options, 'training');
  const { steps } = options;
  // Every update is compared.
  const { train, logger } = given;
  const config = { ...given, train: { ...train, train_iters: steps }, logger: { ...logger, log_interval: 1 } };
  const module = 'bench/run/park-worker.js';
  const job = { module, name, config, nproc, device };
  const undisturbed = await runBench({ ...job, options: { parks: false } });
  const parked = undisturbed.exitCode === 0 ? await runBench({ ...job, options: { parks: true } }) : undisturbed;
  process.exitCode = parked.exitCode;
  if (parked.exitCode !== 0) {
    printFailure(parked.result, options);
    return;
  }
  const differing = differingUpdates(parked.events, undisturbed.events);
  const findings = parkFindings(eventsOf<ParkEvent>(parked.events, 'parked'), steps, differing);
  await print({ ...(await launchedReport('park', device)), ...findings }, options);
  if (differing !== 0) process.exitCode = EXIT.internal;
}

async function benchLogprobs(args: string[], options: LogprobsFlags): Promise<void> {
  const { runBench } = await import('./launch.js');
  const { eventsOf } = await import('../../bench/run/worker-events.js');
  const { logprobsFindings } = await import('./generation.js');
  const { rows, tokens } = options;
  const { config, device, nproc, name } = await prepare(args, options, 'training');
  const module = 'bench/run/logprobs-worker.js';
  const job = { module, name, config, nproc, device, options: { rows, tokens } };
  const { exitCode, result, events } = await runBench(job);
  if (exitCode !== 0) printFailure(result, options);
  else {
    const findings = logprobsFindings(eventsOf<LogprobsEvent>(events, 'logprobs'));
    await print({ ...(await launchedReport('logprobs', device)), ...findings }, options);
  }
  process.exitCode = exitCode;
}

/** The head of a report whose device was opened by other processes. */
async function launchedReport(bench: string, kind: 'cpu' | 'cuda'): Promise<Omit<BenchReport, keyof Findings>> {
  const { openDevice } = await import('../../engine/open-device.js');
  const { versionsOf } = await import('../../bench/device/versions.js');
  const { command, version } = await facts();
  const device = openDevice(kind, 0, 1);
  const head = { device: device.info.name, versions: versionsOf(device, version) };
  device.close();
  return { bench, command, date: new Date().toISOString(), ...head };
}

async function facts(): Promise<{ command: string; version: string }> {
  const { packageVersion } = await import('../../base/package-root.js');
  return { command: ['mbridge', ...process.argv.slice(2)].join(' '), version: packageVersion() };
}

/** How the run ended, as the last line of JSON; people have read it on stderr. */
function printFailure(result: BenchRun['result'], options: BenchFlags): void {
  if (options.json) process.stdout.write(`${eventJson(result)}\n`);
}

async function record(file: string, text: string): Promise<void> {
  const { appendFile } = await import('node:fs/promises');
  try {
    await appendFile(file, text);
  } catch (cause) {
    const { systemError } = await import('../../base/system-error.js');
    const hint = 'name a file in a folder that can be written';
    throw systemError(cause, { code: 'MB_BENCH_RECORD', what: `write --record ${file}`, hint }) ?? cause;
  }
}

async function print(report: BenchReport, options: BenchFlags): Promise<void> {
  const { formatBench, jsonOf } = await import('./report.js');
  const line = outputLine('bench', jsonOf(report));
  if (options.record !== undefined) await record(options.record, line);
  process.stdout.write(options.json ? line : formatBench(report));
}
