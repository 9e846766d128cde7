import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { expect, test } from 'vitest';
import { argumentKind } from '../../src/cli/completion/arguments.js';
import { candidates, type Sources } from '../../src/cli/completion/candidates.js';
import { SCRIPTS, SHELLS, type Shell } from '../../src/cli/completion/scripts.js';
import { makeProgram } from '../../src/cli/program.js';
import { temporaryFolder } from '../job/launch/processes.js';
import { BIN, mbridge } from './mbridge.js';

const SOURCES: Sources = {
  recipes: () => Promise.resolve([{ value: 'qwen3-tiny', about: 'small' }]),
  runs: () => Promise.resolve([{ value: '20261128-a', about: 'done' }]),
  keys: () =>
    Promise.resolve([
      { value: 'optimizer.lr', about: 'peak', choices: [], isPath: false },
      { value: 'model.tie', about: 'whether', choices: [true, false], isPath: false },
      { value: 'dataset.path', about: 'file', choices: [], isPath: true },
    ]),
};

test.each<[line: string, words: string[], paths: string | null]>([
  ['pre', ['pretrain'], null],
  ['checkpoint v', ['checkpoint verify'.split(' ')[1]!], null],
  ['pretrain ', ['qwen3-tiny'], 'files'],
  ['pretrain --nproc ', [], null],
  ['pretrain --nproc 2 qw', ['qwen3-tiny'], 'files'],
  ['pretrain qwen3-tiny opt', ['optimizer.lr='], null],
  ['pretrain qwen3-tiny --tp-size 2 model.tie=', ['model.tie=true', 'model.tie=false'], null],
  ['pretrain qwen3-tiny model.tie=f', ['model.tie=false'], null],
  ['pretrain qwen3-tiny dataset.path=da', [], 'files'],
  ['pretrain qwen3-tiny --device cu', ['cuda'], null],
  ['pretrain qwen3-tiny --device=c', ['--device=cuda', '--device=cpu'], null],
  ['pretrain --conf', ['--config'], null],
  ['pretrain --config ', [], 'files'],
  ['pretrain --log-dir ', [], 'folders'],
  ['resume ', ['20261128-a'], 'folders'],
  ['resume 20261128-a opt', ['optimizer.lr='], null],
  ['runs compare 20261128-a 2', ['20261128-a'], 'folders'],
  ['config keys mo', ['model', 'model.tie'], null],
  ['plot --x t', ['time', 'tokens'], null],
  ['bench comm qw', ['qwen3-tiny'], 'files'],
  ['launch slurm --gpus-per-node 8 -- pretrain qw', ['qwen3-tiny'], 'files'],
  ['completion f', ['fish'], null],
  ['recipes ', [], null],
  ['nothing of ours ', [], null],
])('%j may become', async (line, values, paths) => {
  const found = await candidates(makeProgram(), line.split(' '), SOURCES);
  expect([found.words.map(({ value }) => value), found.paths]).toEqual([values, paths]);
});

test('every command that takes arguments says what they are', () => {
  const [first, ...others] = makeProgram().commands;
  const all = [first!, ...others].flatMap((outer) => [
    { name: outer.name(), command: outer },
    ...outer.commands.map((inner) => ({ name: `${outer.name()} ${inner.name()}`, command: inner })),
  ]);
  for (const { name, command } of all) {
    if (command.registeredArguments.length === 0 || name.startsWith('__')) continue;
    const takesRun = command.usage().includes('recipe') && !name.startsWith('launch');
    expect([name, argumentKind(name, 0) === 'recipe']).toEqual([name, takesRun]);
  }
});

/** A folder with `mbridge` on the PATH, a run and a file of data. */
function workplace(): { folder: string; env: NodeJS.ProcessEnv } {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'bin'));
  symlinkSync(BIN, join(folder, 'bin', 'mbridge'));
  writeFileSync(join(folder, 'my-data.txt'), 'text');
  const { PATH = '', ...rest } = process.env;
  return { folder, env: { ...rest, TERM: 'dumb', NO_COLOR: '1', PATH: `${join(folder, 'bin')}${delimiter}${PATH}` } };
}

/** Types each line and TAB into a real shell, and gives what the line has become. */
async function typed(command: string, setUp: string, lines: readonly string[]): Promise<string[]> {
  const { folder, env } = workplace();
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    cwd: folder,
    env,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  let heard = '';
  child.stdout.on('data', (chunk: Buffer) => (heard += chunk.toString().replaceAll('\u001b[?2004h', '')));
  const until = async (pattern: RegExp, from: number): Promise<void> => {
    for (let i = 0; !pattern.test(heard.slice(from)); i++) {
      if (i > 600) throw new Error(`${pattern} did not come: ${JSON.stringify(heard)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const found: string[] = [];
  try {
    child.stdin.write(`${setUp}\n`);
    await until(/^ready> /m, 0);
    for (const line of lines) {
      const from = heard.length;
      // Home, and a command before it that shows the line.
      child.stdin.write(`${line}\t\x01echo "<\x05>"\r`);
      await until(/\n<[^>]*>\s[^]*ready> $/, from);
      found.push(/\n<([^>]*)>/.exec(heard.slice(from))?.[1] ?? '');
    }
  } finally {
    child.stdin.end('exit\r');
    child.kill('SIGKILL');
  }
  return found;
}

const TYPED = [
  ['mbridge checkpoint ins', 'mbridge checkpoint inspect '],
  ['mbridge pretrain qwen3-ti', 'mbridge pretrain qwen3-tiny '],
  ['mbridge pretrain qwen3-tiny --max-r', 'mbridge pretrain qwen3-tiny --max-restarts '],
  ['mbridge pretrain qwen3-tiny optimizer.l', 'mbridge pretrain qwen3-tiny optimizer.lr='],
  ['mbridge pretrain qwen3-tiny model.cp_comm_type=p', 'mbridge pretrain qwen3-tiny model.cp_comm_type=p2p '],
  ['mbridge pretrain qwen3-tiny dataset.path=my-d', 'mbridge pretrain qwen3-tiny dataset.path=my-data.txt '],
  ['mbridge pretrain qwen3-tiny --config my-d', 'mbridge pretrain qwen3-tiny --config my-data.txt '],
] as const;

const INTERACTIVE: Readonly<Record<Shell, readonly [command: string, setUp: string]>> = {
  bash: ['bash --norc --noprofile -i', "PS1='ready> '; source <(mbridge completion bash)"],
  zsh: [
    'zsh -f -i',
    "PROMPT='ready> '; bindkey -e; autoload -U compinit; compinit -u -D; source <(mbridge completion zsh)",
  ],
  fish: ['fish --no-config -i', "function fish_prompt; echo -n 'ready> '; end; mbridge completion fish | source"],
};

/** Bash is everywhere. */
const isThere = (shell: Shell): boolean => shell === 'bash' || spawnSync(shell, ['--version']).error === undefined;

test.each(SHELLS)('%s completes commands, flags, recipes, keys, values and paths at TAB', async (shell) => {
  if (!isThere(shell)) return;
  const [command, setUp] = INTERACTIVE[shell];
  const lines = TYPED.map(([line]) => line);
  const completed = await typed(command, setUp, lines);
  // Zsh takes the space that it has added back when the next letter is typed elsewhere.
  const shown = TYPED.map(([, line]) => (shell === 'zsh' ? line.trimEnd() : line));
  expect(completed).toEqual(shown);
});

test.each(SHELLS)('the script for %s is printed, and is one that it can read', async (shell) => {
  const { stdout } = await mbridge(['completion', shell]);
  expect(`${stdout}\n`).toBe(SCRIPTS[shell]);
  const file = join(temporaryFolder(), 'script');
  writeFileSync(file, stdout);
  const { error, status, stderr } = spawnSync(shell, ['-n', file], { encoding: 'utf8' });
  if (error === undefined) expect([status, stderr]).toEqual([0, '']);
});
