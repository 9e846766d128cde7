import { basename } from 'node:path';
import { installation } from '../../base/installation.js';
import { shellWord } from '../../base/shell-word.js';
import { shortPath } from '../../base/short-path.js';
import type { SavedCheckpoint, StopSignal, WorkerEvent } from './messages.js';
import { formatSummary, isTrainingResult } from './summary-text.js';

/** How a run came to its end, for people. */
export interface Ending {
  signal: 'no' | StopSignal;
  /** Updates that were run, as far as is known. */
  steps: number;
  /** The last checkpoint; undefined where this run has saved none. */
  saved: SavedCheckpoint | undefined;
  /** checkpoint.save */
  saveFolder: string | null;
  argv: readonly string[];
  /** Whether torchrun or its like started this process as a rank, and not the user as the launcher. */
  asRank?: boolean;
  runDir: string;
  wallS: number;
  /** What the workers sent as their result, if they did. */
  result: WorkerEvent | undefined;
}

/** The last words of a run that was not cut short by a failure. */
export function formatEnding(ending: Ending): string {
  const { signal, steps, wallS, runDir, result } = ending;
  const summary = result !== undefined && isTrainingResult(result) ? formatSummary(result) : [];
  const files = `logs and configuration: ${shortPath(runDir)}`;
  if (signal === 'no') {
    const saved = summary.length === 0 ? [] : formatSaved(ending);
    return [...summary, ...saved, `finished in ${wallS.toFixed(1)} s; ${files}`].join('\n');
  }
  const when = steps === 0 ? 'before the first update' : `after update ${steps}`;
  const stopped = `stopped ${when} by ${signal}, ${wallS.toFixed(1)} s after the start`;
  return [...summary, stopped, ...formatSaved(ending), files].join('\n');
}

/** What is left of the work: the last checkpoint, and how to go on from it. */
function formatSaved(ending: Omit<Ending, 'wallS'>): string[] {
  const { steps, saved, saveFolder, signal, result } = ending;
  if (saved === undefined) {
    if (saveFolder === null) return steps === 0 ? [] : ['not saved: checkpoint.save is not set'];
    return [`nothing was saved in ${saveFolder}`];
  }
  const lost = saved.step < steps ? `; the updates after it are lost` : '';
  const ended = signal === 'no' && result !== undefined && saved.step >= steps;
  const more = ended ? [`train.train_iters=${2 * saved.step}`] : [];
  const again = ending.asRank === true ? ' (each rank, started as before)' : '';
  return [
    `saved: update ${saved.step} in ${shortPath(saved.folder)}${lost}`,
    `${ended ? 'train on' : 'continue'} with: ${[continueCommand(ending, saveFolder ?? saved.folder), ...more].join(' ')}${again}`,
  ];
}

/** After a failure: how to go on, where there is something to go on from. */
export function savedBefore(how: Omit<Ending, 'wallS'>): string[] {
  return how.saved === undefined ? [] : formatSaved(how).map((line) => `  ${line}`);
}

/** `mbridge resume` of the run, or the command that was given with `checkpoint.load` set to `folder`. */
function continueCommand({ argv, runDir }: Pick<Ending, 'argv' | 'runDir'>, folder: string): string {
  const load = `checkpoint.load=${folder}`;
  const [, program = '', ...args] = argv;
  if (!/^mbridge(\.js)?$/.test(basename(program))) return `the same command and ${shellWord(load)}`;
  const start = startOf(program);
  if (args[0] === 'pretrain' || args[0] === 'resume') {
    const json = args.includes('--json') ? [' --json'] : [];
    return [start, ' resume ', shellWord(shortPath(runDir)), ...json].join('');
  }
  const kept = args.filter((arg) => !arg.startsWith('checkpoint.load='));
  return [start, ...kept.map(shellWord), shellWord(load)].join(' ');
}

/** How the user started `program`, for a shell; a bundle's Node.js is on no path. */
function startOf(program: string): string {
  const { kind, command } = installation();
  if (kind === 'bundle') return command;
  if (program.includes('/node_modules/.bin/')) return 'npx mbridge';
  return program.endsWith('.js') ? `node ${shellWord(shortPath(program))}` : 'mbridge';
}
