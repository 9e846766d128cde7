import { basename, isAbsolute, relative } from 'node:path';
import { shellWord } from '../../base/shell-word.js';
import type { SavedCheckpoint, StopSignal } from './messages.js';

/** How a run came to its end, for people. */
export interface Ending {
  signal: 'no' | StopSignal;
  /** Updates that were run, as far as is known. */
  steps: number;
  /** The last checkpoint; undefined where this run has saved none. */
  saved: SavedCheckpoint | undefined;
  /** checkpoint.save */
  saveFolder: string | null;
  /** Of the process that the user started; undefined where torchrun or its like started it. */
  argv: readonly string[] | undefined;
  runDir: string;
  wallS: number;
}

/** The last words of a run that was not cut short by a failure. */
export function formatEnding(ending: Ending): string {
  const { signal, steps, wallS, runDir } = ending;
  const files = `logs and configuration: ${shortPath(runDir)}`;
  if (signal === 'no') return `finished in ${wallS.toFixed(1)} s; ${files}`;
  const when = steps === 0 ? 'before the first update' : `after update ${steps}`;
  return [`stopped ${when} by ${signal}, ${wallS.toFixed(1)} s after the start`, ...formatSaved(ending), files].join(
    '\n',
  );
}

/** What is left of the work: the last checkpoint, and how to go on from it. */
export function formatSaved({ steps, saved, saveFolder, argv }: Omit<Ending, 'signal' | 'runDir' | 'wallS'>): string[] {
  if (saved === undefined) {
    if (saveFolder === null) return steps === 0 ? [] : ['not saved: checkpoint.save is not set'];
    return [`nothing was saved in ${saveFolder}`];
  }
  const lost = saved.step < steps ? `; the updates after it are lost` : '';
  return [
    `saved: update ${saved.step} in ${saved.folder}${lost}`,
    `continue with: ${continueCommand(argv, saveFolder ?? saved.folder)}`,
  ];
}

/** The command that was given, with `checkpoint.load` set to `folder`. */
function continueCommand(argv: readonly string[] | undefined, folder: string): string {
  const load = `checkpoint.load=${folder}`;
  const [, program = '', ...args] = argv ?? [];
  if (!/^mbridge(\.js)?$/.test(basename(program))) return `the same command and ${shellWord(load)}`;
  const start = program.includes('/node_modules/.bin/')
    ? 'npx mbridge'
    : program.endsWith('.js')
      ? `node ${shellWord(shortPath(program))}`
      : 'mbridge';
  const kept = args.filter((arg) => !arg.startsWith('checkpoint.load='));
  return [start, ...kept.map(shellWord), shellWord(load)].join(' ');
}

function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return isAbsolute(path) && (short.startsWith('../../') || short === '') ? path : short;
}
