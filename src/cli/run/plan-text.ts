import { formatRanks } from '../../base/format-ranks.js';
import { deviceIndexOf, gpusFor } from '../../engine/devices.js';
import type { Fit } from '../../plan/fit.js';
import type { StepPrediction } from '../../plan/predict-step.js';
import type { RankPlan, RunPlan } from '../../train/plan.js';
import type { PlanTarget } from '../shared/plan-target.js';
import { predictionText } from '../shared/prediction-text.js';
import { formatTable, largest } from '../shared/table.js';
import { inUnit, MEMORY_UNITS, WORK_UNITS } from '../shared/units.js';

/** A plan, and the GPUs that it is held against, if there are any. */
export interface PlanReport {
  readonly plan: RunPlan;
  readonly ranksPerGpu: number;
  readonly target: PlanTarget | undefined;
  readonly fit: Fit | undefined;
  readonly prediction: StepPrediction | undefined;
}

type Region = keyof RankPlan['bytes'];

/** Regions with a column of their own; the others share one. */
const COLUMNS: readonly (readonly [name: string, region: Region])[] = [
  ['weights', 'parameters'],
  ['fp8', 'fp8'],
  ['grads', 'gradients'],
  ['optim', 'optimizer'],
  ['activ', 'activations'],
];
/** Characters of the ranks and of the layers, so that a line has 80 at most. */
const WIDEST_RANKS = 9;
const WIDEST_LAYERS = 14;

/** The plan for people: 80 columns, unless each rank is to have a line. */
export function planText(report: PlanReport, perRank: boolean): string {
  const { plan, ranksPerGpu, target, fit, prediction } = report;
  const { layout, ranks } = plan;
  const memory = inUnit(
    ranks.map(({ totalBytes }) => totalBytes),
    MEMORY_UNITS,
  );
  const work = inUnit([plan.flopsPerStep], WORK_UNITS);
  const device = `${plan.device}, ${plan.precision}${plan.device === 'cpu' ? ' (--device cuda plans for GPUs)' : ''}`;
  const facts = [
    `layout: tp ${layout.tp}, cp ${layout.cp}, dp ${layout.dp}, pp ${layout.pp} on ${device}`,
    `parameters: ${plan.parameters.toLocaleString('en-US')}${trainedText(plan)}`,
    `update: ${plan.tokensPerStep.toLocaleString('en-US')} tokens, ${work.of(plan.flopsPerStep)} ${work.name}, ${layout.microBatches} micro-batches a replica`,
  ];
  const runtime = largest(ranks.map(({ runtimeBytes }) => runtimeBytes));
  if (perRank && runtime > 0)
    facts.push('runtime: allowance for libraries and communicators, which the device holds beside the total');
  if (!perRank) {
    const allowance = runtime === 0 ? '' : `, ${memory.of(runtime)} for libraries and groups`;
    facts.push(`memory: ${memory.name} a rank; other: buffers, workspace${allowance}`);
    const host = largest(ranks.map(({ hostBytes }) => hostBytes));
    if (host > 0)
      facts.push(`host: ${memory.of(host)} ${memory.name} of a rank at most, in which checkpoints are staged`);
  }
  const copies = ranks.reduce((sum, { copyBytes }) => sum + copyBytes, 0);
  if (copies > 0) facts.push(`copies: ${memory.of(copies)} ${memory.name} of host memory in all, for restarts`);
  if (ranksPerGpu > 1) facts.push(sharedText(plan, ranksPerGpu, memory));
  const table = perRank ? rankTable(plan, memory, work) : groupTable(report, memory);
  const verdict = target === undefined || fit === undefined ? [] : [verdictText(target, fit)];
  const predicted = prediction === undefined ? [] : predictionText(prediction, plan.device === 'cuda' ? 'GPU' : 'rank');
  const below = [...verdict, ...predicted].map((line) => `${line}\n`).join('');
  return `${facts.join('\n')}\n\n${formatTable(table)}${below === '' ? '' : `\n${below}`}`;
}

type Unit = ReturnType<typeof inUnit>;

function trainedText({ parameters, trainedParameters: trained }: RunPlan): string {
  if (trained === parameters) return '';
  return `, of which ${trained.toLocaleString('en-US')} are trained (${((100 * trained) / parameters).toPrecision(2)} %)`;
}

function sharedText({ ranks }: RunPlan, ranksPerGpu: number, memory: Unit): string {
  const held = new Array<number>(gpusFor(ranks.length, ranksPerGpu)).fill(0);
  for (const { rank, totalBytes, runtimeBytes } of ranks) {
    const gpu = deviceIndexOf(rank, ranksPerGpu);
    held[gpu] = (held[gpu] ?? 0) + totalBytes + runtimeBytes;
  }
  const most = `${memory.of(largest(held))} ${memory.name}`;
  return `dist.ranks_per_gpu: ${ranksPerGpu} ranks share each of ${held.length} GPUs; the fullest holds ${most}`;
}

function verdictText({ name }: PlanTarget, { fits, neededBytes, usableBytes }: Fit): string {
  const size = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  return `${fits ? 'fits' : 'does not fit'}: ${size(neededBytes)} on the fullest GPU, ${name} has ${size(usableBytes)}`;
}

/** A line for each rank, with all regions, however wide that is. */
function rankTable({ ranks }: RunPlan, memory: Unit, work: Unit): (string | number)[][] {
  // What is nothing in this unit is nothing to look at.
  const regions = (Object.keys(ranks[0]?.bytes ?? {}) as Region[]).filter((name) =>
    ranks.some(({ bytes }) => memory.of(bytes[name]) > 0),
  );
  const extra = (
    [
      ['runtime', 'runtimeBytes'],
      ['host', 'hostBytes'],
      ['copies', 'copyBytes'],
    ] as const
  ).filter(([, key]) => ranks.some((r) => memory.of(r[key]) > 0));
  const memoryHeads = [...regions, 'total', ...extra.map(([name]) => name)].map((name) => `${name} ${memory.name}`);
  return [
    ['rank', 'tp', 'cp', 'dp', 'pp', 'layers', 'parameters', ...memoryHeads, work.name],
    ...ranks.map((r) => [
      ...[r.rank, ...Object.values(r.coordinates), layersText(r), r.parameters],
      ...regions.map((name) => memory.of(r.bytes[name])),
      memory.of(r.totalBytes),
      ...extra.map(([, key]) => memory.of(r[key])),
      work.of(r.flopsPerStep),
    ]),
  ];
}

/** A line for all ranks that hold the same. */
function groupTable({ plan, target, fit }: PlanReport, memory: Unit): string[][] {
  const text = (bytes: number): string => memory.of(bytes).toFixed(bytes === 0 ? 0 : 1);
  const held = (rank: RankPlan): number => rank.totalBytes + rank.runtimeBytes;
  const columns = COLUMNS.filter(([, region]) => region !== 'fp8' || plan.ranks.some(({ bytes }) => bytes.fp8 > 0));
  const groups = new Map<string, { readonly ranks: number[]; readonly layers: string[]; readonly cells: string[] }>();
  for (const rank of plan.ranks) {
    const own = columns.map(([, region]) => rank.bytes[region]);
    const other = held(rank) - own.reduce((sum, bytes) => sum + bytes, 0);
    const fits = fit === undefined ? [] : [(fit.heldBytes[rank.rank] ?? 0) <= fit.usableBytes ? 'fits' : 'too much'];
    const cells = [...[...own, other, held(rank)].map(text), ...fits];
    const layers = linesOf(layersText(rank));
    const key = [...layers, ...cells].join();
    const group = groups.get(key) ?? { ranks: [], layers, cells };
    group.ranks.push(rank.rank);
    groups.set(key, group);
  }
  const names = ['ranks', 'layers', ...columns.map(([name]) => name), 'other', 'total'];
  const usable = target === undefined ? [] : [`of ${(target.usableBytes / 2 ** 30).toFixed(1)}`];
  const rows = [...groups.values()].flatMap(({ ranks, layers, cells }) => {
    const where = formatRanks(ranks);
    const first = where.length > WIDEST_RANKS ? `${where.slice(0, WIDEST_RANKS - 2)}..` : where;
    return layers.map((line, i) => (i === 0 ? [first, line, ...cells] : ['', line]));
  });
  return alignRight([[...names, ...usable], ...rows], [2, names.length - 1]);
}

/** Numbers that are texts, with the same digits after the point: to the right, from the first to the last column given. */
function alignRight(rows: readonly string[][], [first, last]: readonly [number, number]): string[][] {
  const widths = rows[0]?.map((_, i) => largest(rows.map((row) => row[i]?.length ?? 0))) ?? [];
  return rows.map((row) => row.map((cell, i) => (i >= first && i <= last ? cell.padStart(widths[i] ?? 0) : cell)));
}

/** Layers of many chunks, as many to a line as it takes. */
function linesOf(layers: string): string[] {
  const lines = [''];
  for (const part of layers.split(/(?<=[, ])/)) {
    const last = lines.at(-1) ?? '';
    if (`${last}${part}`.trimEnd().length <= WIDEST_LAYERS) lines[lines.length - 1] = `${last}${part}`;
    else lines.push(part);
  }
  return lines.map((line) => line.trimEnd());
}

/** `E 0-19`, `20-35 H`: decoder layers by chunk, with E for the embedding and H for the head. */
function layersText({ layers, embedding, head }: Pick<RankPlan, 'layers' | 'embedding' | 'head'>): string {
  const ranges = layers.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  return [...(embedding ? ['E'] : []), ranges.join(','), ...(head ? ['H'] : [])].join(' ');
}
