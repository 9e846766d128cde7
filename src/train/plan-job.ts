import { MbridgeError } from '../base/errors.js';
import { didYouMean } from '../base/nearest.js';
import type { DeviceKind } from '../config/layout.js';
import { throwProblems, type Problem } from '../config/problem.js';
import type { RunConfig } from '../config/schema.js';
import { stateBytes } from '../engine/memory-plan.js';
import { PROCESS_BYTES } from './machine-memory.js';
import { planRun, type PlannedModel, type RunPlan } from './plan.js';
import { runtimeAllowances } from './runtime-allowance.js';

/** One of a job's models: its layout is the configuration's, on `ranks` ranks from `rankOffset` on. */
export interface JobModel extends PlannedModel {
  readonly name: string;
  readonly config: RunConfig;
  /** Its first rank; 0 by default. */
  readonly rankOffset?: number;
  /** Those from its first to the last of the job by default. */
  readonly ranks?: number;
}

/** A part of a job's round: which models work in it. The others are parked. */
export interface JobPhase {
  readonly name: string;
  readonly resident: readonly string[];
}

/** Several models that share the ranks of one job. */
export interface Job {
  readonly worldSize: number;
  readonly device: DeviceKind;
  readonly models: readonly JobModel[];
  /** In the order in which they follow each other, again and again. One, with all models, by default. */
  readonly phases?: readonly JobPhase[];
  /** Of each GPU, or of the machine where the job runs on its CPU. */
  readonly memoryBytes?: number;
}

export interface JobModelPlan {
  readonly name: string;
  readonly rankOffset: number;
  readonly layout: RunPlan['layout'];
  readonly precision: RunPlan['precision'];
  readonly trained: boolean;
  /** Whether some phase is without it. */
  readonly parks: boolean;
  /** In the order of its grid, from `rankOffset` on. */
  readonly ranks: readonly {
    readonly rank: number;
    readonly bytes: RunPlan['ranks'][number]['bytes'];
    readonly totalBytes: number;
    /** What parking it copies to the host. */
    readonly stateBytes: number;
  }[];
}

export interface JobRankPlan {
  readonly rank: number;
  /** Bytes on the device in each phase: its resident models and `runtimeBytes`. */
  readonly phaseBytes: readonly number[];
  /** The largest of these, and the phase that has it. */
  readonly peakBytes: number;
  readonly peakPhase: string;
  /** Allowance for libraries, and for the communicators of all models, which parking does not touch. */
  readonly runtimeBytes: number;
  /** Host memory: state of models that are parked (pinned, and kept from the first time on), checkpoints being written. */
  readonly hostBytes: number;
}

/** Everything about the memory of a job that can be known without a device. */
export interface JobPlan {
  readonly worldSize: number;
  readonly device: DeviceKind;
  readonly models: readonly JobModelPlan[];
  readonly phases: readonly JobPhase[];
  readonly ranks: readonly JobRankPlan[];
  /** Of the fullest GPU; on a CPU of all processes, host memory included. */
  readonly neededBytes: number;
  readonly memoryBytes: number | null;
  /** Whether one is in the other; null where `memoryBytes` is not given. */
  readonly fits: boolean | null;
}

/**
 * Plans the memory of several models that take turns on the same ranks: what each rank holds in each phase, and the most
 * of it. Between two phases the models that leave are parked before others are unparked, so that no moment takes more.
 * Each model's memory is that of its {@link planRun}. What else a program takes (RowTable, WeightTransfer) is not in it. Pure.
 * @throws MbridgeError MB_JOB, or what a model's layout is refused with (exit 3), with everything that is wrong
 */
export function planJob(job: Job): JobPlan {
  const { worldSize, device, memoryBytes = null } = job;
  const problems = jobProblems(job);
  throwProblems(problems);
  const names = job.models.map(({ name }) => name);
  const phases = job.phases ?? [{ name: 'all', resident: names }];
  const plans = job.models.map((model) => planModel(model, job, problems));
  throwProblems(problems);
  const runs = plans.filter((plan) => plan !== null);
  const allowances = runtimeAllowances(device, worldSize, ...runs.map(({ groups }) => groups));
  const models = runs.map(({ model, run }): JobModelPlan => {
    const { layout, precision } = run;
    const { name, rankOffset = 0, trainable = true, onlyGenerates = false } = model;
    const ranks = run.ranks.map(({ rank, bytes, totalBytes }) => {
      return { rank: rankOffset + rank, bytes, totalBytes, stateBytes: stateBytes(bytes) };
    });
    const parks = phases.some(({ resident }) => !resident.includes(name));
    const trained = trainable !== false && !onlyGenerates;
    return { name, rankOffset, layout, precision, trained, parks, ranks };
  });
  const ranks = Array.from({ length: worldSize }, (_, rank): JobRankPlan => {
    const here = models.flatMap((model, i) => {
      const at = rank - model.rankOffset;
      const of = model.ranks[at];
      return of === undefined ? [] : [{ model, of, saved: runs[i]!.run.ranks[at]!.hostBytes }];
    });
    const runtimeBytes = allowances[rank] ?? 0;
    const phaseBytes = phases.map(({ resident }) =>
      here.reduce((sum, { model, of }) => sum + (resident.includes(model.name) ? of.totalBytes : 0), runtimeBytes),
    );
    const peakBytes = Math.max(...phaseBytes);
    const hostBytes = here.reduce((sum, { model, of, saved }) => sum + saved + (model.parks ? of.stateBytes : 0), 0);
    const peakPhase = phases[phaseBytes.indexOf(peakBytes)]!.name;
    return { rank, phaseBytes, peakBytes, peakPhase, runtimeBytes, hostBytes };
  });
  const neededBytes =
    device === 'cuda'
      ? ranks.reduce((most, { peakBytes }) => Math.max(most, peakBytes), 0)
      : ranks.reduce((sum, { peakBytes, hostBytes }) => sum + peakBytes + hostBytes + PROCESS_BYTES, 0);
  const fits = memoryBytes === null ? null : neededBytes <= memoryBytes;
  return { worldSize, device, models, phases, ranks, neededBytes, memoryBytes, fits };
}

interface ModelRun {
  readonly model: JobModel;
  readonly run: RunPlan;
  /** Its groups, of the job's ranks. */
  readonly groups: RunPlan['groups'];
}

function planModel(model: JobModel, { worldSize, device }: Job, problems: Problem[]): ModelRun | null {
  const { name, config, rankOffset = 0, ranks = worldSize - rankOffset } = model;
  try {
    const run = planRun(config, ranks, device, model);
    const shifted = Object.entries(run.groups).map(
      ([field, lists]) => [field, lists.map((list) => list.map((rank) => rankOffset + rank))] as const,
    );
    return { model, run, groups: Object.fromEntries(shifted) };
  } catch (error) {
    if (!(error instanceof MbridgeError)) throw error;
    const found = error.details['problems'] as readonly Problem[] | undefined;
    const { code, message, hint } = error;
    const own = found ?? [{ code, path: '', message: hint === undefined ? message : `${message}; ${hint}` }];
    problems.push(...own.map((each) => ({ ...each, place: undefined, path: `models.${name} ${each.path}`.trimEnd() })));
    return null;
  }
}

function jobProblems({ worldSize, models, phases, memoryBytes }: Job): Problem[] {
  const problems: Problem[] = [];
  const bad = (path: string, message: string): void => {
    problems.push({ code: 'MB_JOB', place: undefined, path, message });
  };
  if (!isCount(worldSize)) bad('', `${worldSize} ranks: a job has 1 or more`);
  if (memoryBytes !== undefined && !(memoryBytes > 0)) bad('', `${memoryBytes} bytes of memory: give more than 0`);
  if (problems.length > 0) return problems;
  if (models.length === 0) bad('models', 'a job without models; name at least one');
  const names = models.map(({ name }) => name);
  for (const name of repeated(names)) bad(`models.${name}`, 'two models of one name');
  for (const model of models) modelProblems(model, worldSize).forEach((found) => bad(`models.${model.name}`, found));
  if (phases === undefined) return problems;
  if (phases.length === 0) bad('phases', 'no phases; name at least one, or leave them out');
  for (const name of repeated(phases.map(({ name }) => name))) bad(`phases.${name}`, 'two phases of one name');
  for (const { name, resident } of phases) {
    for (const model of new Set(resident)) {
      if (names.includes(model)) continue;
      bad(`phases.${name}`, `there is no model ${model}${didYouMean(model, names)}; the job has ${names.join(', ')}`);
    }
    for (const model of repeated(resident)) bad(`phases.${name}`, `${model} is named twice`);
  }
  for (const name of names) {
    if (phases.some(({ resident }) => resident.includes(name))) continue;
    bad(`models.${name}`, 'it is resident in no phase; name it in one, or leave it out of the job');
  }
  return problems;
}

function modelProblems(model: JobModel, worldSize: number): string[] {
  const { rankOffset = 0, ranks = worldSize - rankOffset, generation, onlyGenerates, trainable, head } = model;
  const found: string[] = [];
  if (!Number.isSafeInteger(rankOffset) || rankOffset < 0)
    found.push(`its first rank is ${rankOffset}; give 0 or more`);
  else if (rankOffset >= worldSize) found.push(`its first rank is ${rankOffset}, of a job of ${worldSize}`);
  else if (!isCount(ranks)) found.push(`it has ${ranks} ranks; give 1 or more`);
  else if (rankOffset + ranks > worldSize) {
    found.push(`it is on ranks ${rankOffset} to ${rankOffset + ranks - 1}, of a job of ${worldSize}; give it fewer`);
  }
  if (generation !== undefined && !(isCount(generation.slots) && isCount(generation.context))) {
    found.push(`it generates ${generation.slots} rows of ${generation.context} tokens; give 1 or more of each`);
  }
  if (onlyGenerates && generation === undefined) found.push('it only generates, and has no generation: slots, context');
  if (onlyGenerates && trainable !== undefined && trainable !== false) found.push('it only generates, and is trained');
  if (head === 'value' && generation !== undefined) found.push('a value model generates nothing');
  return found;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

function repeated(names: readonly string[]): Set<string> {
  return new Set(names.filter((name, i) => names.indexOf(name) !== i));
}
