import { statSync } from 'node:fs';
import { basename, dirname, extname } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { throwProblems, type Problem } from '../../config/problem.js';
import type { ConfigSources, Resolution } from '../../config/resolve.js';
import { MbridgeError } from '../../base/errors.js';

/** Flags that set one key of the configuration each. */
export const CONFIG_FLAGS = [
  { flag: '--tp-size', option: 'tpSize', path: 'model.tensor_model_parallel_size', help: 'tensor-parallel ranks' },
  { flag: '--pp-size', option: 'ppSize', path: 'model.pipeline_model_parallel_size', help: 'pipeline stages' },
  { flag: '--vp-size', option: 'vpSize', path: 'model.virtual_pipeline_model_parallel_size', help: 'chunks a stage' },
  {
    flag: '--cp-size',
    option: 'cpSize',
    path: 'model.context_parallel_size',
    help: 'context-parallel ranks, which share every sequence',
  },
  { flag: '--ep-size', option: 'epSize', path: 'model.expert_model_parallel_size', help: 'expert-parallel ranks' },
] as const;

/** That set a key to true. */
const SWITCHES = [
  {
    flag: '--check-collectives',
    option: 'checkCollectives',
    path: 'dist.check_collectives',
    help: 'compare each collective between its ranks before it is made: slow, for debugging',
  },
] as const;

const DEVICE_FLAG = { flag: '--device', option: 'device', path: 'dist.device' } as const;
const LOG_DIR_FLAG = { flag: '--log-dir', option: 'logDir', path: 'logger.log_dir' } as const;

/** What commander parses for a command that takes a run. */
export interface RunOptions {
  readonly config?: string;
  readonly nproc?: number;
  readonly json?: boolean;
  readonly [option: string]: unknown;
}

export interface RunRequest extends Resolution {
  /** The recipe's or file's name, for the run's folder. */
  readonly name: string;
}

/** An integer of at least 1 that is no key of the configuration. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= 1_000_000) return value;
  throw new InvalidArgumentError('Expected an integer from 1 to 1000000.');
}

/** A number of bytes, `5e9` too. */
export function parseBytes(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= 1) return value;
  throw new InvalidArgumentError('Expected a number of bytes.');
}

/** Adds the arguments and flags that say what to run. */
export function addRunOptions(command: Command): Command {
  command
    .usage('<recipe|file.yaml> [section.key=value ...] [options]')
    .argument(
      '[args...]',
      'a recipe or a YAML file, then values that win over everything else (texts as they stand; ~/ and $NAME in paths)',
    )
    .option('--config <file>', 'YAML file to lay over the recipe');
  return addLayoutOptions(command);
}

/** Adds the flag of commands that train. */
export function addRestartOption(command: Command): Command {
  const help =
    'after a worker failed or hung (exit codes 5, 6), go on from the last checkpoint up to n times (default: 0)';
  return command.option('--max-restarts <n>', help, parseRestarts);
}

/** A count, or 0. */
export function parseRestarts(text: string): number {
  return text === '0' ? 0 : parseCount(text);
}

/** Adds the flags that say on how many processes, how they are laid out, and where the output goes. */
export function addLayoutOptions(command: Command): Command {
  command.option('--nproc <n>', 'processes; default: the GPUs of this machine, else 1', parseCount);
  for (const { flag, path, help } of CONFIG_FLAGS) {
    command.option(`${flag.replace('-size', '')}, ${flag} <n>`, `${help} (${path})`);
  }
  for (const { flag, path, help } of SWITCHES) command.option(flag, `${help} (${path})`);
  return command
    .option('--device <kind>', `auto, cuda or cpu (${DEVICE_FLAG.path})`)
    .option('--log-dir <folder>', `folder of the run (${LOG_DIR_FLAG.path})`)
    .option('--json', 'one JSON object a line on stdout');
}

/** The values of the flags that set one key of the configuration each. @throws MbridgeError exit 3 */
export async function configFlags(options: RunOptions): Promise<NonNullable<ConfigSources['flags']>> {
  const { parseValue } = await import('../../config/overrides.js');
  const problems: Problem[] = [];
  const flags = [...CONFIG_FLAGS, DEVICE_FLAG, LOG_DIR_FLAG].flatMap(({ flag, option, path }) => {
    const text = options[option];
    if (typeof text !== 'string') return [];
    return [{ path, value: parseValue(path.split('.'), text, flag, problems), place: flag }];
  });
  throwProblems(problems);
  const switches = SWITCHES.filter(({ option }) => options[option] === true);
  return [...flags, ...switches.map(({ flag, path }) => ({ path, value: true, place: flag }))];
}

/** Of a text, as the place where something was set. */
const LONGEST_PLACE = 80;

/** `section.key=value` texts, each with its place. @throws MbridgeError exit 2 for a text that is none */
export async function overridesOf(texts: readonly string[]): Promise<NonNullable<ConfigSources['overrides']>> {
  const { isOverride } = await import('../../config/overrides.js');
  const stray = texts.find((text) => !isOverride(text));
  if (stray !== undefined) throw strayArgument(stray);
  return texts.map((text) => ({
    text,
    place: text.length > LONGEST_PLACE ? `${text.slice(0, LONGEST_PLACE)}...` : text,
  }));
}

/** Puts the configuration of a command line together: defaults < recipe < file < flags < overrides. */
export async function resolveRequest(args: readonly string[], options: RunOptions): Promise<RunRequest> {
  const { isOverride } = await import('../../config/overrides.js');
  const [first, ...rest] = args;
  const subject = first === undefined || isOverride(first) ? undefined : first;
  const overrides = await overridesOf(subject === undefined ? args : rest);

  const namesFile = subject !== undefined && namesConfigFile(subject);
  if (namesFile && options.config !== undefined) {
    throw new MbridgeError('usage', 'MB_USAGE', `two configuration files: ${subject} and --config ${options.config}`, {
      hint: 'give one of them; overrides are section.key=value',
    });
  }
  const file = namesFile ? subject : options.config;
  if (subject === undefined && file === undefined) {
    throw new MbridgeError('usage', 'MB_USAGE', 'nothing to run: no recipe and no configuration file', {
      hint: 'name a recipe (mbridge recipes) or a .yaml file, or use --config FILE',
    });
  }
  const { findRecipe } = await import('../../../recipes/index.js');
  const { resolve } = await import('../../config/resolve.js');
  const recipe = subject !== undefined && !namesFile ? findRecipe(subject) : undefined;
  const resolution = resolve({
    ...(recipe === undefined ? {} : { recipe }),
    ...(file === undefined ? {} : { file }),
    flags: await configFlags(options),
    overrides,
  });
  return { ...resolution, name: recipe?.name ?? (await nameOfFile(file ?? 'run')) };
}

/** The file's own name; of a run's `resolved.yaml` that of the run. */
async function nameOfFile(file: string): Promise<string> {
  const own = basename(file, extname(file));
  if (own !== 'resolved') return own;
  const { readRunRecord } = await import('../../job/shared/run-folder.js');
  return readRunRecord(dirname(file))?.name ?? own;
}

/** Whether a word that says what to run is a configuration file's name, not a recipe's. */
export function namesConfigFile(subject: string): boolean {
  return ['.yaml', '.yml'].includes(extname(subject)) || isFile(subject);
}

/** A folder is none: one that is called as a recipe hides nothing. */
function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === false;
}

function strayArgument(text: string): MbridgeError {
  return new MbridgeError('usage', 'MB_USAGE', `unexpected argument ${text}`, {
    hint: 'after the recipe, file or model come section.key=value texts',
  });
}
