import type { Command } from 'commander';
import { outputLine } from '../../outputs/line.js';
import { snakeKeys } from '../../outputs/snake-keys.js';
import { PROFILE_FLAG, planTarget } from '../shared/plan-target.js';
import { planRequest } from '../shared/plan-request.js';
import { addRunOptions, namesConfigFile, resolveRequest, type RunOptions } from '../shared/run-options.js';
import type { PlanReport } from './plan-text.js';

interface PlanFlags extends RunOptions {
  readonly perRank?: boolean;
  readonly deviceProfile?: string;
}

const GPU_HELP = 'GPUs that it is for (h100-80gb, ...): whether it fits (else exit code 4), time of a step';

/** `mbridge plan`: ranks, layers, memory and work of a run, without starting it and without a device. */
export function addPlan(program: Command): void {
  addRunOptions(program.command('plan'))
    .description(
      'print the ranks of a run: layers, parameters, memory, work; of a job.yaml the memory of its models by phase',
    )
    .option('--per-rank', 'a line for each rank, where by default those with the same work are shown together')
    .option(PROFILE_FLAG, GPU_HELP)
    .action(async (args: string[], options: PlanFlags) => {
      if (await isJob(args[0])) {
        const { planJobFile } = await import('./plan-job.js');
        process.stdout.write(await planJobFile(args, options));
        return;
      }
      const report = await reportOf(args, options);
      process.stdout.write(await textOf(report, options));
      if (options.deviceProfile === undefined || report.target === undefined || report.fit?.fits !== false) return;
      const { doesNotFit } = await import('../../plan/fit.js');
      throw doesNotFit(report.plan, report.fit, report.target.name);
    });
}

/** Whether what is to be planned is a file of several models. */
async function isJob(subject: string | undefined): Promise<boolean> {
  if (subject === undefined || !namesConfigFile(subject)) return false;
  const { isJobFile } = await import('../../config/job-file.js');
  return isJobFile(subject);
}

async function reportOf(args: readonly string[], options: PlanFlags): Promise<PlanReport> {
  const { fitOf } = await import('../../plan/fit.js');
  const { predictStep } = await import('../../plan/predict-step.js');
  const request = await resolveRequest(args, options);
  const { config } = request;
  if (options.deviceProfile !== undefined && config.dist.device === 'cpu') {
    const { MbridgeError } = await import('../../base/errors.js');
    throw new MbridgeError('usage', 'MB_USAGE', `--gpu ${options.deviceProfile} for a run on the CPU`, {
      hint: 'leave --device cpu out, or --gpu',
    });
  }
  const plan = await planRequest(request, options.nproc, options.deviceProfile === undefined ? undefined : 'cuda');
  const target = await planTarget(options.deviceProfile, plan.device);
  const ranksPerGpu = plan.device === 'cuda' ? config.dist.ranks_per_gpu : 1;
  const profile = target?.profile ?? null;
  return {
    plan,
    ranksPerGpu,
    target,
    fit: target && fitOf(plan, target.usableBytes, ranksPerGpu),
    prediction: profile === null ? undefined : predictStep(config, plan.layout, profile, plan.device),
  };
}

async function textOf(report: PlanReport, { json, perRank = false }: PlanFlags): Promise<string> {
  if (!json) {
    const { planText } = await import('./plan-text.js');
    return planText(report, perRank);
  }
  const { predictionJson } = await import('../shared/prediction-text.js');
  const { plan, target, fit, prediction } = report;
  const gpu = target && { name: target.name, usable_bytes: target.usableBytes };
  const held = fit && { fits: fit.fits, needed_bytes: fit.neededBytes, held_bytes: fit.heldBytes };
  const predicted = prediction && predictionJson(prediction);
  return outputLine('plan', { ...snakeKeys(plan), ...(gpu && { gpu }), ...held, ...(predicted && { predicted }) });
}
