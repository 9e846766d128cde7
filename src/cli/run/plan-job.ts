import { EXIT, MbridgeError } from '../../base/errors.js';
import { formatRanks } from '../../base/format-ranks.js';
import type { JobFile } from '../../config/job-file.js';
import { outputLine } from '../../outputs/line.js';
import { snakeKeys } from '../../outputs/snake-keys.js';
import type { JobModel, JobPlan } from '../../train/plan-job.js';
import { namesConfigFile, type RunOptions } from '../shared/run-options.js';
import { formatTable } from '../shared/table.js';
import { inUnit, MEMORY_UNITS } from '../shared/units.js';

/** Characters of the last column of phases, so that a line has 80 at most. */
const WIDEST_LIST = 30;
const WIDEST_RANKS = 12;

/** `mbridge plan job.yaml`: the memory of several models on the same ranks, by phase. */
export async function planJobFile([path = '', ...rest]: readonly string[], options: RunOptions): Promise<string> {
  const stray = [...rest, ...Object.keys(options).filter((name) => !['nproc', 'device', 'json'].includes(name))];
  if (stray[0] !== undefined) {
    const flag =
      stray[0] === 'deviceProfile' ? 'gpu' : stray[0].replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const name = rest.includes(stray[0]) ? stray[0] : `--${flag}`;
    throw new MbridgeError('usage', 'MB_USAGE', `${name} is for the plan of one run, and ${path} holds a job`, {
      hint: 'a job takes --nproc, --device and --json; what a model is made of stands in the file',
    });
  }
  const { loadJobFile } = await import('../../config/job-file.js');
  const { chooseDevice, defaultProcesses } = await import('../../engine/devices.js');
  const { availableBytes } = await import('../../train/machine-memory.js');
  const { planJob } = await import('../../train/plan-job.js');
  const file = loadJobFile(path);
  const asked = (options['device'] as string | undefined) ?? file.device ?? 'auto';
  if (asked !== 'auto' && asked !== 'cuda' && asked !== 'cpu') {
    throw new MbridgeError('usage', 'MB_USAGE', `--device ${asked}`, { hint: 'auto, cuda or cpu' });
  }
  // A plan needs no GPU: one that is asked for by name is planned for wherever we are.
  const device = asked === 'auto' ? chooseDevice({ dist: { device: asked } }) : asked;
  const memoryBytes = file.memory_gib === undefined ? undefined : file.memory_gib * 2 ** 30;
  const capacity = memoryBytes ?? (device === 'cpu' ? availableBytes() : undefined);
  const plan = planJob({
    worldSize: options.nproc ?? file.nproc ?? defaultProcesses(device),
    device,
    models: await modelsOf(file, path),
    ...(file.phases && { phases: Object.entries(file.phases).map(([name, resident]) => ({ name, resident })) }),
    ...(capacity !== undefined && { memoryBytes: capacity }),
  });
  return options.json ? outputLine('job_plan', snakeKeys(plan)) : asText(plan);
}

async function modelsOf({ models }: JobFile, path: string): Promise<JobModel[]> {
  const { resolve } = await import('../../config/resolve.js');
  const { findRecipe } = await import('../../../recipes/index.js');
  return Object.entries(models).map(([name, model]): JobModel => {
    const { run, set, rank_offset: rankOffset, ranks, head, generation, only_generates: onlyGenerates } = model;
    const place = `${path} models.${name}`;
    const sizes = {
      tensor_model_parallel_size: model.tp,
      pipeline_model_parallel_size: model.pp,
      virtual_pipeline_model_parallel_size: model.vp,
      context_parallel_size: model.cp,
    };
    try {
      const config = resolve({
        ...(namesConfigFile(run) ? { file: run } : { recipe: findRecipe(run) }),
        flags: Object.entries(sizes).flatMap(([key, value]) =>
          value === undefined ? [] : [{ path: `model.${key}`, value, place }],
        ),
        overrides: set.map((text) => ({ text, place })),
      }).config;
      return {
        ...{ name, config, ...(model.trainable !== undefined && { trainable: trainableOf(model.trainable) }) },
        ...(rankOffset !== undefined && { rankOffset }),
        ...(ranks !== undefined && { ranks }),
        ...(head !== undefined && { head }),
        ...(generation !== undefined && { generation }),
        ...(onlyGenerates !== undefined && { onlyGenerates }),
      };
    } catch (error) {
      // Problems with a place of their own name it.
      const isConfig = error instanceof MbridgeError && error.exitCode === EXIT.config;
      if (!isConfig || error.message.includes(place)) throw error;
      const { hint, details, code, message } = error;
      throw new MbridgeError('config', code, `${place}: ${message}`, { details, ...(hint !== undefined && { hint }) });
    }
  });
}

function trainableOf(trainable: boolean | string): boolean | RegExp {
  if (typeof trainable === 'boolean') return trainable;
  try {
    return new RegExp(trainable);
  } catch (error) {
    throw new MbridgeError('config', 'MB_JOB', `trainable is no pattern: ${(error as Error).message}`, {
      hint: 'true, false, or a regular expression of the buckets to train: ^value$',
      cause: error,
    });
  }
}

function asText(plan: JobPlan): string {
  const { models, phases, ranks, device } = plan;
  const memory = inUnit(
    ranks.map(({ peakBytes }) => peakBytes),
    MEMORY_UNITS,
  );
  const head = ['model', 'ranks', 'tp', 'cp', 'dp', 'pp', '', `state ${memory.name}`, `total ${memory.name}`];
  const modelRows = models.flatMap(({ name, layout: { tp, cp, dp, pp }, trained, ranks: own }) => {
    const rows = alike(own, ({ totalBytes, stateBytes }) => [memory.of(stateBytes), memory.of(totalBytes)]);
    const [title, kind] = [name, trained ? 'trained' : 'frozen'];
    return rows.map(({ where, cells }, i) => [
      ...[i === 0 ? title : '', where, tp, cp, dp, pp],
      i === 0 ? kind : '',
      ...cells,
    ]);
  });
  const phaseRows = phases.flatMap(({ name, resident }, phase) => {
    const rows = alike(ranks, ({ phaseBytes }) => [memory.of(phaseBytes[phase] ?? 0)]);
    const lists = linesOf(resident);
    return Array.from({ length: Math.max(rows.length, lists.length) }, (_, i) => {
      const { where = '', cells = [''] } = rows[i] ?? {};
      return [i === 0 ? name : '', where, ...cells, lists[i] ?? ''];
    });
  });
  const rankRows = alike(ranks, ({ runtimeBytes, hostBytes, peakBytes, peakPhase }) => [
    ...[memory.of(runtimeBytes), memory.of(peakBytes), peakPhase, memory.of(hostBytes)],
  ]);
  const rankHead = ['ranks', `runtime ${memory.name}`, `peak ${memory.name}`, 'in phase', `host ${memory.name}`];
  const note = device === 'cpu' ? ' (--device cuda plans for GPUs)' : '';
  return [
    `job: ${ranks.length} ranks on ${device}, ${[...new Set(models.map(({ precision }) => precision))].join(' and ')}${note}`,
    '',
    formatTable([head, ...modelRows]),
    formatTable([['phase', 'ranks', `device ${memory.name}`, 'resident'], ...phaseRows]),
    formatTable([rankHead, ...rankRows.map(({ where, cells }) => [where, ...cells])]),
    ...verdict(plan),
    '',
  ].join('\n');
}

function verdict({ device, ranks, neededBytes, memoryBytes, fits }: JobPlan): string[] {
  const pinned = ranks.reduce((sum, { hostBytes }) => sum + hostBytes, 0);
  const fullest = ranks.findIndex(({ peakBytes }) => peakBytes === neededBytes);
  const where = device === 'cuda' ? `on rank ${fullest}` : 'of all processes, host memory included';
  const lines = [`peak: ${sizeText(neededBytes)} ${where}`];
  if (pinned > 0) lines.push(`host: ${sizeText(pinned)} of all ranks for what is parked or saved`);
  if (memoryBytes === null) return [...lines, 'memory_gib in the job says whether it fits'];
  const room = `${sizeText(memoryBytes)} of ${device === 'cuda' ? 'a GPU' : 'this machine'}`;
  const left = sizeText(Math.abs(memoryBytes - neededBytes));
  return [...lines, fits ? `fits: ${left} of ${room} are left` : `does not fit: ${left} more than ${room}`];
}

function sizeText(bytes: number): string {
  const { name, of } = inUnit([bytes], MEMORY_UNITS);
  return `${of(bytes)} ${name}`;
}

type Cells = (string | number)[];

interface Row {
  /** Ranks. */
  readonly where: string;
  readonly cells: Cells;
}

/** A row for all ranks that have the same cells. */
function alike<R extends { readonly rank: number }>(ranks: readonly R[], cellsOf: (rank: R) => Cells): Row[] {
  const rows = new Map<string, { cells: Cells; ranks: number[] }>();
  for (const each of ranks) {
    const cells = cellsOf(each);
    const row = rows.get(cells.join(' ')) ?? { cells, ranks: [] };
    row.ranks.push(each.rank);
    rows.set(cells.join(' '), row);
  }
  return [...rows.values()].map(({ cells, ranks: own }) => {
    const text = formatRanks(own);
    return { where: text.length > WIDEST_RANKS ? `${text.slice(0, WIDEST_RANKS - 3)}...` : text, cells };
  });
}

/** Names, as many to a line as it takes. */
function linesOf(names: readonly string[]): string[] {
  const lines: string[] = [];
  for (const name of names) {
    const last = lines.at(-1);
    if (last !== undefined && `${last} ${name}`.length <= WIDEST_LIST) lines[lines.length - 1] = `${last} ${name}`;
    else lines.push(name);
  }
  return lines;
}
