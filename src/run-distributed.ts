import { realpathSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkConfig } from './config/check-config.js';
import { validateLayout, resolvePrecision } from './config/layout.js';
import type { Resolution } from './config/resolve.js';
import type { RunConfig } from './config/schema.js';
import { validationSets } from './config/validation-sets.js';
import { takeEarlySignals } from './base/early-signals.js';
import { MbridgeError } from './base/errors.js';
import { checkDataFile } from './data/open-dataset.js';
import { checkVocabulary } from './data/tokenizer.js';
import { chooseDevice, defaultProcesses, requireDevices, unusedGpus } from './engine/devices.js';
import type { NodePlace } from './job/launch/job.js';
import type { ProgramStart } from './job/shared/program-start.js';
import type { Restarts } from './job/launch/restarts.js';
import { shortPath } from './base/short-path.js';
import type { WorkerEvent } from './job/shared/messages.js';
import { reportError } from './job/shared/report-error.js';
import type { Announcement } from './job/shared/run-start.js';
import { announceRun } from './train/banner.js';
import { reasonNotToCopy, withoutCopies } from './train/copies.js';
import { reasonNotToSave, withDefaultSaves, withoutSaves } from './train/default-saves.js';
import { checkMachineMemory, fitsMachine } from './train/machine-memory.js';
import { planRun } from './train/plan.js';
import { detectStarter, refuseSeveralLaunchers, variablesOf, type Starter } from './job/shared/starter.js';
import { prepareSamples } from './run-samples.js';
import type { RunWorker } from './job/worker/context.js';
import { parseEnvironment } from './job/worker/environment.js';

export interface RunDistributedOptions {
  config: RunConfig;
  /** Where the values of the configuration came from (see resolve), so that messages can name the places. */
  origins?: Resolution['origins'];
  /** Processes to start; by default one for each visible GPU, else one. Must be left out under torchrun, srun or mpirun. */
  nproc?: number | undefined;
  /** `import.meta.url` of a module that exports `runWorker`; the standard training loop by default. */
  worker?: string;
  /** What that module is given as `context.options`. Goes through JSON. */
  options?: unknown;
  /** Name of the run's folder. */
  name?: string;
  json?: boolean;
}

/** Whether a module is the program that was started, as opposed to imported (as a worker imports it). */
export function isMain(url: string): boolean {
  const program = process.argv[1];
  // A worker of the same process imports the program's module a second time, by another address.
  return program !== undefined && new URL(url).search === '' && realpathSync(program) === fileURLToPath(url);
}

/**
 * Runs a program on many processes: starts one worker a rank and supervises them, or becomes one where torchrun, srun
 * or mpirun has started this process. Resolves with the exit code of the run, how it ended has been printed.
 * The configuration is checked here, as it is when it is read: it may have been changed since.
 * @throws MbridgeError where it could not be started (MB_CONFIG_..., exit 3, for a configuration that is wrong;
 * MB_SEVERAL_LAUNCHERS, exit 2, for `nproc` in a process that torchrun or its like started): {@link runMain} prints that too
 */
export function runDistributed(options: RunDistributedOptions): Promise<number> {
  // A program of its own may build other models than the configuration's, and bring its own data.
  const checks = options.worker === undefined ? { data: true, trainable: true } : null;
  return start(options, checks);
}

/** What the commands of this package ask for beside. */
export interface StartOptions extends RunDistributedOptions {
  /** What is printed in the place of an event, by a launcher of ours; null for nothing. */
  shown?: (event: WorkerEvent, runDir: string) => WorkerEvent | null;
  /** Saves in the run's own folder, a few checkpoints, unless there is no room for them. */
  savesInRunFolder?: boolean;
  /** How often a run that fails begins again from its last checkpoint; never by default. */
  maxRestarts?: number | undefined;
  /** Folder of an earlier run, to go on in. */
  runDir?: string;
  /** Where the run is on several nodes: this one of them. Each starts `nproc` processes. */
  nodes?: NodePlace | undefined;
  /** What the ranks run that this very program brings: each of them is the program, started again. */
  own?: OwnTraining;
}

/** Functions cannot be sent to a process, so a rank gets them by running the program itself up to where it asks for the run. */
export interface OwnTraining {
  readonly runWorker: RunWorker;
  /** Whether it brings samples of its own. */
  readonly data: boolean;
  readonly program: ProgramStart;
}

/** What is looked at before processes are started: the data files, and whether such a model fits the memory. */
export interface Checks {
  readonly data: boolean;
  readonly trainable: boolean;
}

/**
 * {@link runDistributed} with checks of one's own.
 * @param checks null for none
 * @param fit makes the configuration that runs on so many ranks
 */
export async function start(
  options: StartOptions,
  checks: Checks | null,
  fit: (config: RunConfig, worldSize: number) => RunConfig = (config) => config,
): Promise<number> {
  takeEarlySignals();
  const { json = false, nodes } = options;
  if (options.nproc !== undefined || detectStarter(process.env) === undefined) {
    refuseSeveralLaunchers(process.env, nodes !== undefined);
  }
  const external = options.nproc === undefined && detectStarter(process.env) !== undefined;
  if (external && nodes !== undefined) throw nodesElsewhere();
  // A program may have changed what a recipe or resolveConfig gave it.
  const { origins } = options;
  const isSet = (path: string): boolean => origins?.has(path) ?? false;
  let saves = options.savesInRunFolder ?? false;
  const checked = checkConfig(saves ? withDefaultSaves(options.config, isSet) : options.config);
  const device = chooseDevice(checked);
  const { ranks_per_gpu: ranksPerGpu } = checked.dist;
  const nproc = options.nproc ?? defaultProcesses(device, ranksPerGpu);
  const environment = external ? parseEnvironment(process.env) : null;
  const worldSize = environment?.worldSize ?? nproc * (nodes?.count ?? 1);
  const localRanks = environment?.localWorldSize ?? nproc;
  requireDevices(device, localRanks, ranksPerGpu);
  const { maxRestarts = 0 } = options;
  const uncopied = reasonNotToCopy(checked, { external, nodes, maxRestarts, own: options.worker !== undefined });
  if (uncopied !== undefined && (environment?.rank ?? nodes?.rank ?? 0) === 0) warn(uncopied);
  let config = fit(uncopied === undefined ? checked : withoutCopies(checked), worldSize);
  const layout = { ...validateLayout(config, worldSize, { device, ...(origins === undefined ? {} : { origins }) }) };
  const rank = environment?.rank ?? nproc * (nodes?.rank ?? 0);
  const unused = checked.dist.device === 'auto' && rank === 0 ? unusedGpus() : undefined;
  if (unused !== undefined) warn(unused);
  let unsaved: string | undefined;
  if (checks !== null) {
    const { data, trainable } = checks;
    if (data) {
      const sets = Object.values(validationSets(config)).map(({ dataset }) => dataset);
      for (const each of new Set([config.dataset, ...sets])) checkDataFile(each);
    }
    if (data && !external) await checkTokenizer(config);
    let plan = planRun(config, worldSize, device, { trainable });
    if (saves && !['save_interval', 'keep_last', 'keep_every'].some((key) => isSet(`checkpoint.${key}`))) {
      const folder = options.runDir ?? config.logger.log_dir ?? '.';
      if (localRanks < worldSize) unsaved = 'nothing: on several nodes checkpoint.save says which folder they share';
      else if (!fitsMachine(plan, localRanks)) unsaved = 'nothing: no memory to stage it in (set checkpoint.save)';
      else unsaved = reasonNotToSave(plan, config.checkpoint.keep_last, folder);
      if (unsaved !== undefined) {
        saves = false;
        config = withoutSaves(config);
        plan = planRun(config, worldSize, device, { trainable });
      }
    }
    checkMachineMemory(plan, localRanks);
    if (data) {
      const { prepareRunData } = await import('./data/prepare/prepare-run.js');
      config = await prepareRunData(config, {
        make: localRanks === worldSize && !external,
        warn: rank === 0 ? warn : () => undefined,
      });
    }
  }
  const samples = checks !== null && options.worker === undefined ? await prepareSamples(config, external) : null;
  // The run's record says what ran, not what was left open.
  const settled = { ...config, mixed_precision: resolvePrecision(config, device), dist: { ...config.dist, device } };
  const file = options.worker === undefined ? undefined : fileURLToPath(options.worker);
  const program = file ?? options.own?.program.command[0];
  const name = options.name ?? (program === undefined ? 'run' : basename(program, extname(program)));
  const { runDir } = options;
  const announce = (folder: string, ran: RunConfig): Announcement =>
    announceRun({
      ...{ name, config: ran, unsaved, restarts: maxRestarts, external, runDir: shortPath(folder) },
      plan: planRun(ran, worldSize, device),
      ownData: options.own?.data ?? false,
      saveFolder: ran.checkpoint.save === null ? null : shortPath(ran.checkpoint.save),
    });
  const job = {
    name,
    config: settled,
    savesInRunFolder: saves,
    validates: config.validation.eval_interval !== null,
    ...(runDir === undefined ? {} : { runDir }),
    ...(file === undefined && checks?.trainable === true ? { announce } : {}),
    device,
    argv: process.argv,
    ...(nodes === undefined ? {} : { nodes }),
    keepsCopies: config.checkpoint.non_persistent_save_interval !== null,
    layout,
    json,
    ...(options.shown === undefined ? {} : { shown: options.shown }),
    ...(samples === null ? {} : { options: { samples: samples.prompts }, shown: samples.shown.bind(samples) }),
    ...(file === undefined ? {} : { workerModule: file, options: options.options }),
    ...(options.own === undefined ? {} : { program: options.own.program }),
  };
  if (external) {
    if (maxRestarts > 0) throw restartsElsewhere(detectStarter(process.env));
    return (await import('./job/worker/entry.js')).runAsWorker(job, options.own?.runWorker);
  }
  const restarts = maxRestarts === 0 ? {} : { restarts: await restartsFrom(settled, saves, maxRestarts) };
  const { launch } = await import('./job/launch/launch.js');
  const ended = await launch({ ...job, ...restarts, nproc });
  // Of a run on several nodes, node 0 has the numbers.
  if (file === undefined && checks?.trainable === true && (nodes?.rank ?? 0) === 0) {
    await (await import('./trace/report.js')).leaveReport(ended.runDir, warn);
  }
  return ended.exitCode;
}

/** The standard training loop as the commands start it. Resolves and throws as {@link runDistributed}. */
export function trainAsCommand(options: StartOptions): Promise<number> {
  return start(options, { data: true, trainable: true });
}

/**
 * Runs the main function of a program and resolves with its exit code. What it throws is printed: an {@link MbridgeError}
 * as one message with its hint, anything else with its stack.
 */
export async function runMain(main: () => number | Promise<number>): Promise<number> {
  takeEarlySignals();
  try {
    return await main();
  } catch (error) {
    return reportError(error, false);
  }
}

/** @param saves whether the run saves in a folder of its own, where it will find nothing of others */
async function restartsFrom({ checkpoint }: RunConfig, saves: boolean, most: number): Promise<Restarts> {
  const { findCheckpoint } = await import('./checkpoint/format/checkpoint-root.js');
  const { stepOfFolder } = await import('./checkpoint/format/checkpoint-format.js');
  const { save, load } = checkpoint;
  const isOwn = saves || save === load || save === null || (await findCheckpoint(save)).folder === null;
  return {
    most,
    goOn: async (config, saved) => {
      const root = config.checkpoint.save;
      const found = isOwn && root !== null ? (await findCheckpoint(root)).folder : null;
      const load = found === null ? saved?.folder : root;
      if (load == null) return { config, step: null };
      const step = found === null ? saved?.step : stepOfFolder(basename(found));
      return { config: { ...config, checkpoint: { ...config.checkpoint, load } }, step: step ?? 0 };
    },
  };
}

function nodesElsewhere(): MbridgeError {
  return new MbridgeError('usage', 'MB_USAGE', '--nnodes, and other processes start the ranks', {
    hint: 'leave it out: what starts the ranks says how many there are; or start one process a node',
  });
}

/** A rank cannot start the others again. */
function restartsElsewhere(starter: Starter | undefined): MbridgeError {
  const title = starter === undefined ? 'another program' : variablesOf(starter).title;
  const how =
    starter === 'torchrun'
      ? 'torchrun --max-restarts N does that'
      : starter === 'slurm'
        ? 'mbridge launch slurm --max-restarts N writes a job that does that'
        : 'a loop around it does that, after exit codes 5 and 6';
  return new MbridgeError('usage', 'MB_USAGE', `--max-restarts in one of the ranks that ${title} started`, {
    hint: `${how}; give checkpoint.load and checkpoint.save one folder, so that each start goes on from the last checkpoint`,
  });
}

/** What the ranks do not do: they load no tokenizer. */
async function checkTokenizer({ tokenizer, model }: RunConfig): Promise<void> {
  if (tokenizer.type !== 'huggingface') return;
  const { readTokenizerFolder, vocabularySize } = await import('./data/tokenizer/tokenizer-folder.js');
  const folder = readTokenizerFolder(tokenizer.path);
  checkVocabulary({ name: folder.path, vocabSize: vocabularySize(folder) }, model.vocab_size);
}

function warn(text: string): void {
  process.stderr.write(`warning: ${text}\n`);
}
