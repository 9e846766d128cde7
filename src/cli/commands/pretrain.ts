import type { Command } from 'commander';
import type { DeviceKind } from '../../config/layout.js';
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
  const { chooseDevice, defaultProcesses, requireDevices } = await import('../../engine/devices.js');
  const device = chooseDevice(request.config);
  const nproc = options.nproc ?? defaultProcesses(device);
  requireDevices(device, nproc);
  const json = options.json ?? false;
  const job = await prepare(request, { device, worldSize: nproc, localRanks: nproc, json });
  const { launch } = await import('../../launch/launch.js');
  return (await launch({ ...job, nproc })).exitCode;
}

async function beWorker(request: RunRequest, options: RunOptions): Promise<number> {
  const { parseEnvironment } = await import('../../worker/environment.js');
  const { chooseDevice, requireDevices } = await import('../../engine/devices.js');
  const { runAsWorker } = await import('../../worker/entry.js');
  const { worldSize, localWorldSize } = parseEnvironment(process.env, process.ppid);
  const device = chooseDevice(request.config);
  requireDevices(device, localWorldSize);
  const job = await prepare(request, { device, worldSize, localRanks: localWorldSize, json: options.json ?? false });
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
  run: { device: DeviceKind; worldSize: number; localRanks: number; json: boolean },
): Promise<PreparedRun> {
  const { validateLayout, resolvePrecision } = await import('../../config/layout.js');
  const { planRun } = await import('../../train/plan.js');
  const { checkMemory } = await import('../check-memory.js');
  const { device, worldSize, json } = run;
  const layout = validateLayout(config, worldSize, { device, origins });
  checkMemory(planRun(config, worldSize, device), run.localRanks);
  // The run's record says what ran, not what was left open.
  const settled = { ...config, mixed_precision: resolvePrecision(config, device), dist: { ...config.dist, device } };
  if (settled.dataset.type === 'mock') {
    process.stderr.write('dataset: mock tokens; the loss means nothing (set dataset.type and dataset.path)\n');
  }
  return { name, config: settled, device, argv: process.argv, layout: { ...layout }, json };
}
