import type { RunPlan } from '../../train/plan.js';
import type { RunRequest } from './run-options.js';

/**
 * The plan of a run on so many processes; those that it would be given here by default. It needs no GPU: one that is asked
 * for by name is planned for wherever we are.
 * @param device in the place of `dist.device=auto`; what is here by default
 * @throws MbridgeError exit 3 where the configuration does not fit
 */
export async function planRequest(
  { config, origins }: Pick<RunRequest, 'config' | 'origins'>,
  asked: number | undefined,
  auto?: 'cpu' | 'cuda',
): Promise<RunPlan> {
  const { validateLayout } = await import('../../config/layout.js');
  const { planRun } = await import('../../train/plan.js');
  const { chooseDevice, defaultProcesses } = await import('../../engine/devices.js');
  const device = config.dist.device === 'auto' ? (auto ?? chooseDevice(config)) : config.dist.device;
  const nproc = asked ?? defaultProcesses(device, config.dist.ranks_per_gpu);
  validateLayout(config, nproc, { device, origins });
  return planRun(config, nproc, device);
}
