import { basename, join } from 'node:path';
import { MbridgeError } from './base/errors.js';
import { changedValue, configChanges } from './config/changes.js';
import { withoutDerived } from './config/derive.js';
import { resolve, type ConfigSources } from './config/resolve.js';
import { shortPath } from './base/short-path.js';
import { findRun, type KnownRun } from './job/shared/run-list.js';
import { detectStarter, firstSet, variablesOf } from './job/shared/starter.js';
import { outputLine } from './outputs/line.js';
import { withoutSaves } from './train/default-saves.js';
import { trainAsCommand, type RunDistributedOptions } from './run-distributed.js';

export interface ResumeOptions extends Pick<RunDistributedOptions, 'nproc' | 'json'> {
  /** The run's folder, or its name in `runs/`; the last one there by default. */
  readonly run?: string | undefined;
  readonly flags?: ConfigSources['flags'];
  readonly overrides?: ConfigSources['overrides'];
  readonly maxRestarts?: number | undefined;
}

/**
 * `mbridge resume` as a function: goes on with a run from its last checkpoint, in its folder, with the configuration that
 * it had and what is laid over it.
 * @returns the exit code
 * @throws MbridgeError MB_RESUME (exit 7) where there is no such run, or nothing of it to go on from
 */
export async function resume(options: ResumeOptions): Promise<number> {
  const { flags = [], overrides = [], json = false } = options;
  const starter = options.nproc === undefined ? detectStarter(process.env) : undefined;
  const isFirst = starter === undefined || firstSet(process.env, variablesOf(starter).rank).value === '0';
  const { folder, record } = findRun(options.run);
  refuseFinetune(folder, record.sessions[0]?.argv ?? []);
  const { name, config: had } = record;
  // How often to save is nothing to say where it does not.
  const saves = !overrides.some(({ text }) => /^checkpoint\.save=(null)?$/.test(text));
  const base = withoutDerived(saves ? had : withoutSaves(had));
  const sources = { recipe: { name: `run ${name}`, config: base }, flags, overrides };
  const { config: wanted, origins } = resolve(sources);
  const given = (path: string): boolean => ['flag', 'override'].includes(origins.get(path)?.origin ?? '');
  const savesInRunFolder = record.saves_in_run_folder && !given('checkpoint.save');
  const from = given('checkpoint.load') ? wanted.checkpoint.load : savesOf(folder, record);
  const step = await lastStep(folder, from);
  const config = { ...wanted, checkpoint: { ...wanted.checkpoint, load: from } };
  const { train_iters: last } = config.train;
  if (step >= last) {
    const run = shortPath(folder);
    const more = `to train on: mbridge resume ${run} train.train_iters=${2 * step}`;
    if (isFirst) process.stderr.write(`${run} is done: it has ${step} of ${last} updates; ${more}\n`);
    const result = { ok: true, exit_code: 0, run_dir: folder, steps: step };
    if (isFirst && json) process.stdout.write(outputLine('result', result));
    return 0;
  }
  if (isFirst) {
    const changes = configChanges(had, config)
      .filter(({ key }) => key !== 'checkpoint.load')
      .map(({ key, a, b }) => `${key} ${changedValue(a)} -> ${changedValue(b)}`);
    const lines = [`resume ${shortPath(folder)} after update ${step}`, ...changes];
    process.stderr.write(`${lines.join('\n  ')}\n`);
  }
  const { maxRestarts } = options;
  const nproc = options.nproc ?? (starter === undefined ? record.nproc : undefined);
  return trainAsCommand({ config, name, origins, nproc, json, maxRestarts, savesInRunFolder, runDir: folder });
}

/** Where the run saved; its folder may have been moved since. */
function savesOf(folder: string, { saves_in_run_folder: inFolder, config }: KnownRun['record']): string | null {
  const { save } = config.checkpoint;
  return inFolder && save !== null ? join(folder, basename(save)) : save;
}

/** Updates in the checkpoint that the run goes on from. */
async function lastStep(folder: string, from: string | null): Promise<number> {
  const run = shortPath(folder);
  if (from === null)
    throw noRun(`${run} saved nothing (checkpoint.save=null)`, 'name a checkpoint: checkpoint.load=DIR');
  const { findCheckpoint } = await import('./checkpoint/format/checkpoint-root.js');
  const { readStateAlone } = await import('./checkpoint/format/checkpoint-files.js');
  const found = await findCheckpoint(from);
  if (found.folder === null) {
    const hint =
      'it ended before the first, or was started in another folder; checkpoint.save_interval saves more often';
    throw noRun(`${run} has no checkpoint in ${from}`, hint);
  }
  return (await readStateAlone(found.folder))?.step ?? 0;
}

/** A run that ends with more than a checkpoint knows itself how to go on. */
function refuseFinetune(folder: string, argv: readonly string[]): void {
  if (argv[2] !== 'finetune') return;
  throw noRun(`${shortPath(folder)} is a run of mbridge finetune`, 'give its command again: it goes on where it was');
}

function noRun(found: string, hint: string): MbridgeError {
  return new MbridgeError('io', 'MB_RESUME', found, { hint });
}
