import type { Command } from 'commander';
import type { DeviceKind, RunLayout } from '../../config/layout.js';
import type { RunConfig } from '../../config/schema.js';
import { exitOnClosedPipe } from '../closed-pipe.js';
import { addRunOptions, resolveRequest, type RunOptions, type RunRequest } from '../run-options.js';

/** `mbridge pretrain`: starts the workers, or becomes one where torchrun, srun or mpirun has started this process. */
export function addPretrain(program: Command): void {
  addRunOptions(program.command('pretrain'))
    .description('train a model from scratch or from given weights')
    .action(async (args: string[], options: RunOptions) => {
      const request = await resolveRequest(args, options);
      const { detectStarter } = await import('../../worker/environment.js');
      const asWorker = options.nproc === undefined && detectStarter(process.env) !== undefined;
      process.stdout.off('error', exitOnClosedPipe);
      process.exitCode = await (asWorker ? beWorker(request, options) : launchWorkers(request, options));
    });
}

async function launchWorkers(request: RunRequest, options: RunOptions): Promise<number> {
  const { chooseDevice } = await import('../devices.js');
  const { device, count } = chooseDevice(request.config);
  const nproc = options.nproc ?? (Number.isFinite(count) ? count : 1);
  if (nproc > count) {
    const { MbridgeError } = await import('../../errors.js');
    throw new MbridgeError('environment', 'MB_DEVICE', `${nproc} processes need as many GPUs, ${count} are visible`, {
      hint: `use --nproc ${count}, or --device cpu`,
      details: { nproc, gpus: count },
    });
  }
  const job = await prepare(request, options, nproc, device);
  const { launch } = await import('../../launch/launch.js');
  return (await launch({ ...job, nproc })).exitCode;
}

async function beWorker(request: RunRequest, options: RunOptions): Promise<number> {
  const { parseEnvironment } = await import('../../worker/environment.js');
  const { chooseDevice } = await import('../devices.js');
  const { runAsWorker } = await import('../../worker/entry.js');
  const { worldSize } = parseEnvironment(process.env, process.ppid);
  const job = await prepare(request, options, worldSize, chooseDevice(request.config).device);
  return runAsWorker(job);
}

interface PreparedRun {
  name: string;
  config: RunConfig;
  device: DeviceKind;
  argv: readonly string[];
  layout: Record<string, number>;
  json: boolean;
}

/** Checks that the run is possible before anything is started. */
async function prepare(
  { name, config, origins }: RunRequest,
  options: RunOptions,
  worldSize: number,
  device: DeviceKind,
): Promise<PreparedRun> {
  const { validateLayout, resolvePrecision } = await import('../../config/layout.js');
  const layout: RunLayout = validateLayout(config, worldSize, { device, origins });
  // The run's record says what ran, not what was left open.
  const settled = { ...config, mixed_precision: resolvePrecision(config, device), dist: { ...config.dist, device } };
  if (settled.dataset.type === 'mock') {
    process.stderr.write('dataset: mock tokens; the loss means nothing (set dataset.type and dataset.path)\n');
  }
  return { name, config: settled, device, argv: process.argv, layout: { ...layout }, json: options.json ?? false };
}
