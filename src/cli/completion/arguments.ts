/** What a word of the command line can be. */
export type Kind = 'recipe' | 'override' | 'run' | 'file' | 'folder' | 'key' | 'shell' | 'command' | 'text';

/** The arguments of a command by its words, the last for all that follow. */
const ARGUMENTS: Readonly<Record<string, readonly Kind[]>> = {
  resume: ['run', 'override'],
  report: ['run'],
  plot: ['run'],
  dash: ['run'],
  'runs list': ['folder'],
  'runs compare': ['run'],
  finetune: ['folder', 'override'],
  eval: ['folder', 'override'],
  generate: ['folder', 'override'],
  'config keys': ['key'],
  'checkpoint reshard': ['folder'],
  'checkpoint inspect': ['folder'],
  'checkpoint verify': ['folder'],
  'checkpoint prune': ['folder'],
  'checkpoint import': ['folder'],
  'checkpoint export': ['folder'],
  'data import-hf': ['folder'],
  'data inspect': ['file'],
  'data verify': ['file'],
  'data merge': ['file'],
  'launch slurm': ['command'],
  'launch k8s': ['command'],
  'setup-cuda': ['text'],
  completion: ['shell'],
};

const RUN: readonly Kind[] = ['recipe', 'override'];

/** What argument `index` (from 0) of a command is; those that are not named here take a recipe or a file. */
export function argumentKind(command: string, index: number): Kind {
  const kinds = Object.hasOwn(ARGUMENTS, command) ? (ARGUMENTS[command] ?? RUN) : RUN;
  return kinds[Math.min(index, kinds.length - 1)] ?? 'text';
}

/** What an option takes, by the name of its value. */
export function valueKind(flags: string): Kind {
  const value = /[<[]([^>\]]+)[>\]]/.exec(flags)?.[1] ?? '';
  if (/^(file|path|prefix)/.test(value)) return 'file';
  if (/^(folder|dir)/.test(value)) return 'folder';
  return 'text';
}
