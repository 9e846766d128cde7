import type { Command } from 'commander';
import type { RunPlan } from '../../train/plan.js';
import { largest } from '../shared/table.js';
import {
  addRunOptions,
  namesConfigFile,
  resolveRequest,
  type RunOptions,
  type RunRequest,
} from '../shared/run-options.js';
import { inUnit, MEMORY_UNITS, WORK_UNITS } from '../shared/units.js';

/** `mbridge plan`: ranks, layers, memory and work of a run, without starting it and without a device. */
export function addPlan(program: Command): void {
  addRunOptions(program.command('plan'))
    .description(
      'print the ranks of a run: layers, parameters, memory, work; of a job.yaml the memory of its models by phase',
    )
    .action(async (args: string[], options: RunOptions) => {
      if (await isJob(args[0])) {
        const { planJobFile } = await import('./plan-job.js');
        process.stdout.write(await planJobFile(args, options));
        return;
      }
      const request = await resolveRequest(args, options);
      const plan = await planRequest(request, options.nproc);
      const ranksPerGpu = plan.device === 'cuda' ? request.config.dist.ranks_per_gpu : 1;
      process.stdout.write(options.json ? `${JSON.stringify(plan)}\n` : await asText(plan, ranksPerGpu));
    });
}

/** Whether what is to be planned is a file of several models. */
async function isJob(subject: string | undefined): Promise<boolean> {
  if (subject === undefined || !namesConfigFile(subject)) return false;
  const { isJobFile } = await import('../../config/job-file.js');
  return isJobFile(subject);
}

/** A plan needs no GPU: one that is asked for by name is planned for wherever we are. */
async function planRequest({ config, origins }: RunRequest, asked: number | undefined): Promise<RunPlan> {
  const { validateLayout } = await import('../../config/layout.js');
  const { planRun } = await import('../../train/plan.js');
  const { chooseDevice, defaultProcesses } = await import('../../engine/devices.js');
  const device = config.dist.device === 'auto' ? chooseDevice(config) : config.dist.device;
  const nproc = asked ?? defaultProcesses(device, config.dist.ranks_per_gpu);
  validateLayout(config, nproc, { device, origins });
  return planRun(config, nproc, device);
}

async function asText(plan: RunPlan, ranksPerGpu: number): Promise<string> {
  const { formatTable } = await import('../shared/table.js');
  const { deviceIndexOf, gpusFor } = await import('../../engine/devices.js');
  const { layout, ranks } = plan;
  const regions = Object.keys(ranks[0]?.bytes ?? {}).filter((name) =>
    ranks.some(({ bytes }) => bytes[name as keyof typeof bytes] > 0),
  ) as (keyof (typeof ranks)[number]['bytes'])[];
  const memory = inUnit(
    ranks.map(({ totalBytes }) => totalBytes),
    MEMORY_UNITS,
  );
  const work = inUnit([plan.flopsPerStep], WORK_UNITS);
  const extra = (
    [
      ['runtime', 'runtimeBytes'],
      ['host', 'hostBytes'],
    ] as const
  ).filter(([, key]) => ranks.some((r) => r[key] > 0));
  const memoryHeads = [...regions, 'total', ...extra.map(([name]) => name)].map((name) => `${name} ${memory.name}`);
  const head = ['rank', 'tp', 'cp', 'dp', 'pp', 'layers', 'parameters', ...memoryHeads, work.name];
  const rows = ranks.map(({ rank, coordinates: at, ...r }) => [
    rank,
    at.tp,
    at.cp,
    at.dp,
    at.pp,
    layersText(r),
    r.parameters,
    ...regions.map((name) => memory.of(r.bytes[name])),
    memory.of(r.totalBytes),
    ...extra.map(([, key]) => memory.of(r[key])),
    work.of(r.flopsPerStep),
  ]);
  const device = `${plan.device}, ${plan.precision}${plan.device === 'cpu' ? ' (--device cuda plans for GPUs)' : ''}`;
  const facts = [
    `layout: tp ${layout.tp}, cp ${layout.cp}, dp ${layout.dp}, pp ${layout.pp} on ${device}`,
    `parameters: ${plan.parameters.toLocaleString('en-US')}`,
    `update: ${plan.tokensPerStep.toLocaleString('en-US')} tokens, ${work.of(plan.flopsPerStep)} ${work.name}, ${layout.microBatches} micro-batches a replica`,
  ];
  if (plan.device === 'cuda') {
    facts.push('runtime: allowance for libraries and communicators, which the device holds beside the total');
  }
  if (ranksPerGpu > 1) {
    const held = new Array<number>(gpusFor(ranks.length, ranksPerGpu)).fill(0);
    for (const { rank, totalBytes, runtimeBytes } of ranks) {
      const gpu = deviceIndexOf(rank, ranksPerGpu);
      held[gpu] = (held[gpu] ?? 0) + totalBytes + runtimeBytes;
    }
    const most = `${memory.of(largest(held))} ${memory.name}`;
    facts.push(`dist.ranks_per_gpu: ${ranksPerGpu} ranks share each of ${held.length} GPUs; the fullest holds ${most}`);
  }
  return `${facts.join('\n')}\n\n${formatTable([head, ...rows])}`;
}

/** `E 0-19`, `20-35 H`: decoder layers by chunk, with E for the embedding and H for the head. */
function layersText({
  layers,
  embedding,
  head,
}: Pick<RunPlan['ranks'][number], 'layers' | 'embedding' | 'head'>): string {
  const ranges = layers.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  return [...(embedding ? ['E'] : []), ranges.join(','), ...(head ? ['H'] : [])].join(' ');
}
