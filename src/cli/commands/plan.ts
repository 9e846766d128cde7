import type { Command } from 'commander';
import type { RunPlan } from '../../train/plan.js';
import { addRunOptions, resolveRequest, type RunOptions, type RunRequest } from '../run-options.js';

/** `mbridge plan`: ranks, layers, memory and work of a run, without starting it and without a device. */
export function addPlan(program: Command): void {
  addRunOptions(program.command('plan'))
    .description('print the ranks of a run: layers, parameters, memory, work')
    .action(async (args: string[], options: RunOptions) => {
      const request = await resolveRequest(args, options);
      const plan = await planRequest(request, options.nproc);
      process.stdout.write(options.json ? `${JSON.stringify(plan)}\n` : await asText(plan));
    });
}

/** A plan needs no GPU: one that is asked for by name is planned for wherever we are. */
async function planRequest({ config, origins }: RunRequest, asked: number | undefined): Promise<RunPlan> {
  const { validateLayout } = await import('../../config/layout.js');
  const { planRun } = await import('../../train/plan.js');
  const { chooseDevice, defaultProcesses } = await import('../devices.js');
  const device = config.dist.device === 'auto' ? chooseDevice(config) : config.dist.device;
  const nproc = asked ?? defaultProcesses(device);
  validateLayout(config, nproc, { device, origins });
  return planRun(config, nproc, device);
}

async function asText(plan: RunPlan): Promise<string> {
  const { formatTable } = await import('../table.js');
  const { layout, ranks } = plan;
  const regions = Object.keys(ranks[0]?.bytes ?? {}).filter((name) =>
    ranks.some(({ bytes }) => bytes[name as keyof typeof bytes] > 0),
  ) as (keyof (typeof ranks)[number]['bytes'])[];
  const head = [
    'rank',
    'tp',
    'cp',
    'dp',
    'pp',
    'layers',
    'parameters',
    ...regions.map((name) => `${name} GiB`),
    'total GiB',
    'TFLOP',
  ];
  const rows = ranks.map(({ rank, coordinates: at, ...r }) => [
    rank,
    at.tp,
    at.cp,
    at.dp,
    at.pp,
    layersText(r),
    r.parameters,
    ...regions.map((name) => gib(r.bytes[name])),
    gib(r.totalBytes),
    Number((r.flopsPerStep / 1e12).toFixed(2)),
  ]);
  const device = `${plan.device}, ${plan.precision}${plan.device === 'cpu' ? ' (--device cuda plans for GPUs)' : ''}`;
  const facts = [
    `layout: tp ${layout.tp}, cp ${layout.cp}, dp ${layout.dp}, pp ${layout.pp} on ${device}`,
    `parameters: ${plan.parameters.toLocaleString('en-US')}`,
    `update: ${plan.tokensPerStep.toLocaleString('en-US')} tokens, ${(plan.flopsPerStep / 1e12).toFixed(3)} TFLOP, ${layout.microBatches} micro-batches a replica`,
  ];
  return `${facts.join('\n')}\n\n${formatTable([head, ...rows])}`;
}

/** Two digits after the point. */
function gib(bytes: number): number {
  return Number((bytes / 2 ** 30).toFixed(2));
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
