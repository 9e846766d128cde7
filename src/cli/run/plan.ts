import type { Command } from 'commander';
import { formatRanks } from '../../base/format-ranks.js';
import { outputLine } from '../../outputs/line.js';
import { snakeKeys } from '../../outputs/snake-keys.js';
import type { RunPlan } from '../../train/plan.js';
import { largest } from '../shared/table.js';
import { planRequest } from '../shared/plan-request.js';
import { addRunOptions, namesConfigFile, resolveRequest, type RunOptions } from '../shared/run-options.js';
import { inUnit, MEMORY_UNITS, WORK_UNITS } from '../shared/units.js';

/** `mbridge plan`: ranks, layers, memory and work of a run, without starting it and without a device. */
export function addPlan(program: Command): void {
  addRunOptions(program.command('plan'))
    .description(
      'print the ranks of a run: layers, parameters, memory, work; of a job.yaml the memory of its models by phase',
    )
    .option('--per-rank', 'a line for each rank, where by default those with the same work are shown together')
    .action(async (args: string[], options: RunOptions & { perRank?: boolean }) => {
      if (await isJob(args[0])) {
        const { planJobFile } = await import('./plan-job.js');
        process.stdout.write(await planJobFile(args, options));
        return;
      }
      const request = await resolveRequest(args, options);
      const plan = await planRequest(request, options.nproc);
      const ranksPerGpu = plan.device === 'cuda' ? request.config.dist.ranks_per_gpu : 1;
      process.stdout.write(
        options.json ? outputLine('plan', snakeKeys(plan)) : await asText(plan, ranksPerGpu, options.perRank ?? false),
      );
    });
}

/** Whether what is to be planned is a file of several models. */
async function isJob(subject: string | undefined): Promise<boolean> {
  if (subject === undefined || !namesConfigFile(subject)) return false;
  const { isJobFile } = await import('../../config/job-file.js');
  return isJobFile(subject);
}

async function asText(plan: RunPlan, ranksPerGpu: number, perRank: boolean): Promise<string> {
  const { formatTable } = await import('../shared/table.js');
  const { deviceIndexOf, gpusFor } = await import('../../engine/devices.js');
  const { layout, ranks } = plan;
  const memory = inUnit(
    ranks.map(({ totalBytes }) => totalBytes),
    MEMORY_UNITS,
  );
  const work = inUnit([plan.flopsPerStep], WORK_UNITS);
  // What is nothing in this unit is nothing to look at.
  const regions = Object.keys(ranks[0]?.bytes ?? {}).filter((name) =>
    ranks.some(({ bytes }) => memory.of(bytes[name as keyof typeof bytes]) > 0),
  ) as (keyof (typeof ranks)[number]['bytes'])[];
  const extra = (
    [
      ['runtime', 'runtimeBytes'],
      ['host', 'hostBytes'],
      ['copies', 'copyBytes'],
    ] as const
  ).filter(([, key]) => ranks.some((r) => memory.of(r[key]) > 0));
  const memoryHeads = [...regions, 'total', ...extra.map(([name]) => name)].map((name) => `${name} ${memory.name}`);
  const head = ['layers', 'parameters', ...memoryHeads, work.name];
  const cellsOf = (r: (typeof ranks)[number]): (string | number)[] => [
    layersText(r),
    r.parameters,
    ...regions.map((name) => memory.of(r.bytes[name])),
    memory.of(r.totalBytes),
    ...extra.map(([, key]) => memory.of(r[key])),
    work.of(r.flopsPerStep),
  ];
  const table = perRank
    ? [
        ['rank', 'tp', 'cp', 'dp', 'pp', ...head],
        ...ranks.map((r) => [r.rank, ...Object.values(r.coordinates), ...cellsOf(r)]),
      ]
    : groupedTable(['ranks', 'pp', ...head], ranks, cellsOf);
  const device = `${plan.device}, ${plan.precision}${plan.device === 'cpu' ? ' (--device cuda plans for GPUs)' : ''}`;
  const facts = [
    `layout: tp ${layout.tp}, cp ${layout.cp}, dp ${layout.dp}, pp ${layout.pp} on ${device}`,
    `parameters: ${plan.parameters.toLocaleString('en-US')}${trainedText(plan)}`,
    `update: ${plan.tokensPerStep.toLocaleString('en-US')} tokens, ${work.of(plan.flopsPerStep)} ${work.name}, ${layout.microBatches} micro-batches a replica`,
  ];
  if (plan.device === 'cuda') {
    facts.push('runtime: allowance for libraries and communicators, which the device holds beside the total');
  }
  const copies = ranks.reduce((sum, { copyBytes }) => sum + copyBytes, 0);
  if (copies > 0) facts.push(`copies: ${memory.of(copies)} ${memory.name} of host memory in all, for restarts`);
  if (ranksPerGpu > 1) {
    const held = new Array<number>(gpusFor(ranks.length, ranksPerGpu)).fill(0);
    for (const { rank, totalBytes, runtimeBytes } of ranks) {
      const gpu = deviceIndexOf(rank, ranksPerGpu);
      held[gpu] = (held[gpu] ?? 0) + totalBytes + runtimeBytes;
    }
    const most = `${memory.of(largest(held))} ${memory.name}`;
    facts.push(`dist.ranks_per_gpu: ${ranksPerGpu} ranks share each of ${held.length} GPUs; the fullest holds ${most}`);
  }
  return `${facts.join('\n')}\n\n${formatTable(table)}`;
}

function trainedText({ parameters, trainedParameters: trained }: RunPlan): string {
  if (trained === parameters) return '';
  return `, of which ${trained.toLocaleString('en-US')} are trained (${((100 * trained) / parameters).toPrecision(2)} %)`;
}

/** Ranks with the same work side by side, what they have below each other: that fits a terminal. */
function groupedTable(
  head: readonly string[],
  ranks: RunPlan['ranks'],
  cellsOf: (rank: RunPlan['ranks'][number]) => (string | number)[],
): string[][] {
  const groups = new Map<string, { readonly ranks: number[]; readonly cells: (string | number)[] }>();
  for (const each of ranks) {
    const cells = [each.coordinates.pp, ...cellsOf(each)];
    const key = cells.join();
    const group = groups.get(key) ?? { ranks: [], cells };
    group.ranks.push(each.rank);
    groups.set(key, group);
  }
  const columns = [...groups.values()].map((group) => [formatRanks(group.ranks), ...group.cells]);
  const text = (cell: string | number | undefined): string =>
    typeof cell === 'number' ? cell.toLocaleString('en-US') : (cell ?? '');
  return head.map((name, i) => [name, ...columns.map((cells) => text(cells[i]))]);
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
