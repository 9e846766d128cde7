import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, describe, expect, test } from 'vitest';
import { COMMANDS, FENCES, PAGES, ROOT, type DocumentedCommand } from './fences.js';

// Commands run in a folder that looks like the checkout but keeps what they write.
const folder = mkdtempSync(join(tmpdir(), 'mbridge-docs-'));
for (const name of readdirSync(ROOT)) if (name !== 'runs') symlinkSync(join(ROOT, name), join(folder, name));
afterAll(() => rmSync(folder, { recursive: true }));

/** Why a command is only checked, not run: it needs GPUs, a cluster's starter, or far more time than a test has; or it
 * installs, which `test/scripts` does. */
const CHECKED_ONLY = ['gpu', 'cluster', 'long', 'install'];
const CI = readFileSync(join(ROOT, '.ci/run'), 'utf8');

/**
 * Runs a line of the documentation. npx would install the folder into its cache first, so the command is called
 * directly; a test below runs npx itself. With all that it starts, it is killed before the test's own limit.
 */
async function run(command: string): Promise<{ exitCode: number | undefined; stdout: string; stderr: string }> {
  const direct = command.replaceAll('npx mbridge', 'node bin/mbridge.js');
  const { exitCode, stdout, stderr } = await execa('timeout', ['-s', 'KILL', '170', 'bash', '-c', direct], {
    cwd: folder,
    reject: false,
    stdin: 'ignore',
    env: { NO_COLOR: '1' },
  });
  return { exitCode, stdout, stderr };
}

/** `npm ci` and `npm test` are what CI itself does; the rest of a line is run. */
function withoutCiSteps(command: string): string {
  const parts = command.split(' && ');
  for (const step of ['npm ci', 'npm test']) if (parts.includes(step)) expect(CI).toContain(step);
  return parts.filter((part) => part !== 'npm ci' && part !== 'npm test').join(' && ');
}

function losses(stdout: string): number[] {
  return [...stdout.matchAll(/^step .*? loss ([\d.]+)|"type":"step".*?"loss":([\d.]+)/gm)].map((match) =>
    Number(match[1] ?? match[2]),
  );
}

describe('every command of the documentation runs', () => {
  const runnable = COMMANDS.filter(({ info }) => info === '');
  // What several pages say in the same words is run where it comes first; what one of them gives a folder, in that.
  const commands = [...new Set(runnable.map(({ command }) => command))];
  const bare = (command: string): string => command.replace(/ --log-dir \S+/, '');
  const inFolder = (command: string): string =>
    commands.find((other) => other !== command && bare(other) === command) ?? command;
  const once = runnable
    .map((each) => ({ ...each, command: inFolder(each.command) }))
    .filter(({ command }, i, all) => all.findIndex((other) => other.command === command) === i);

  test.each(once)('$at: $command', { timeout: 180_000 }, async ({ command }) => {
    const line = withoutCiSteps(command);
    if (line === '') return;
    const { exitCode, stdout, stderr } = await run(line);
    expect(exitCode, stderr).toBe(0);
    expect(stdout).not.toBe('');
    if (/mbridge(\.js)? pretrain/.test(line)) expect(losses(stdout).length, stderr).toBeGreaterThan(0);
    const isMainJob = bare(command) === 'npm ci && npx mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2';
    if (line.includes('pretrain-qwen3-simple.js')) expect(losses(stdout).at(-1)).toBeLessThan(losses(stdout)[0]!);
    if (isMainJob) {
      expect(losses(stdout)[0]).toBeGreaterThan(5);
      expect(losses(stdout).at(-1)).toBeLessThan(3);
    }
  });

  test('npx finds the command', async () => {
    // As in a shell: under npm or npx, their variables would say where to look.
    const env = Object.entries(process.env).filter(([name]) => !name.startsWith('npm_'));
    const { stdout } = await execa('npx', ['mbridge', '--version'], {
      cwd: ROOT,
      env: Object.fromEntries(env),
      extendEnv: false,
    });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+$/);
  });

  test('the two commands of a fresh machine come first', () => {
    const first = COMMANDS.slice(0, 2).map(({ command }) => command);
    expect(first).toEqual(['npm ci && npx mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2', 'npm ci && npm test']);
  });
});

interface Package {
  version: string;
  scripts: Record<string, string>;
  devDependencies: Record<string, string>;
}

/** Whether a line that installs names files, scripts, packages and targets that there are. */
async function checkInstallation(command: string): Promise<void> {
  const { version, scripts, devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Package;
  const made = [`mbridge-${version}.tgz`, `mbridge-cuda-linux-x64-${version}.tgz`, `mbridge-${version}-linux-x64`];
  const files = [...made, `${made[2]}.tar.xz`, `${made[2]}.tar.xz.sha256`];
  const named = [...command.matchAll(/mbridge-[\w.-]+/g)].map(([file]) => file);
  expect(named.filter((file) => !files.includes(file))).toEqual([]);
  const [tool = '', ...words] = command.split(' ');
  if (tool === 'docker') {
    const target = / --target (\w+)/.exec(command)?.[1];
    if (target !== undefined) expect(readFileSync(join(ROOT, 'Dockerfile'), 'utf8')).toContain(` AS ${target}\n`);
  } else if (tool === 'npm' && words[0] === 'install') {
    for (const [, name = '', wanted] of command.matchAll(/ ([\w-]+)@(\S+)/g))
      expect(devDependencies[name]).toBe(wanted);
  } else if (tool === 'npm' && words[0] === 'run') {
    expect(Object.keys(scripts)).toContain(words[1]);
  } else if (/\bmbridge /.test(command)) await check(command);
  else expect(['npm ci', `sha256sum -c ${files.at(-1)}`, `tar xJf ${files.at(-2)}`]).toContain(command);
}

/** Whether a command line that cannot run here is understood: planned for GPUs, or its flags known. */
async function check(command: string): Promise<void> {
  // What another command of the page has written.
  const [, written] = /^(?:sbatch|kubectl apply -f) (\S+)$/.exec(command) ?? [];
  if (written !== undefined) {
    expect(existsSync(join(folder, written)), `${command}: nothing has written it`).toBe(true);
    return;
  }
  const [, subcommand = '', rest = ''] =
    /\bmbridge(?:\.js)? ((?:(?:bench|checkpoint|data|launch) )?\S+)(.*)$/.exec(command) ?? [];
  const flags = [...command.matchAll(/ --([a-z-]+)/g)].map((match) => match[1] as string);
  if (subcommand === 'pretrain') {
    const nproc = rest.includes('--nproc') ? '' : '--nproc 8';
    // A run on several nodes is planned as one of all their ranks.
    const whole = rest
      .replace(/ --json| --max-restarts \d+/g, '')
      .replace(/--nproc (\d+) --nnodes (\d+) --node-rank \d+ --rdzv-endpoint \S+/, (_, n, m) => `--nproc ${+n * +m}`);
    const { exitCode, stderr } = await run(`npx mbridge plan ${whole} ${nproc} --device cuda`);
    expect(exitCode, stderr).toBe(0);
  } else if (subcommand !== '') {
    // A group's own commands have the flags.
    const group = subcommand === 'bench' || subcommand === 'checkpoint';
    const path = group ? `${subcommand} ${rest.trim().split(' ')[0]}` : subcommand;
    const { exitCode, stdout } = await run(`npx mbridge ${path} --help`);
    expect(exitCode).toBe(0);
    const known = flags.filter((flag) => stdout.includes(`--${flag}`));
    expect(known).toEqual(flags);
  } else {
    const [script = ''] = /\b(?:dist|bench|scripts)\/\S+\.(?:js|mjs|py|sh)/.exec(command) ?? [];
    const npmScript = /\bnpm run (\S+)/.exec(command)?.[1];
    if (npmScript !== undefined) {
      const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: object };
      expect(Object.keys(scripts)).toContain(npmScript);
      return;
    }
    expect(existsSync(join(ROOT, script)), `${command}: no such script`).toBe(true);
    const source = readFileSync(join(ROOT, script), 'utf8');
    const named = flags.filter((flag) => new RegExp(`\\b${flag}\\b`).test(source));
    expect(named).toEqual(flags);
  }
}

describe('commands that need other machines are understood', () => {
  const others = COMMANDS.filter(({ info }) => info !== '');
  test.each<DocumentedCommand>(others)('$at: $command', async ({ info, command }) => {
    expect(CHECKED_ONLY).toContain(info);
    await (info === 'install' ? checkInstallation(command) : check(command));
  });
});

describe('other blocks', () => {
  test('are of a kind that is looked at', () => {
    const kinds = new Set(FENCES.map(({ language }) => language));
    expect([...kinds].filter((kind) => !['bash', 'text', 'ts', 'yaml'].includes(kind))).toEqual([]);
  });

  test.each(FENCES.filter(({ language }) => language === 'ts'))('$page:$line is part of $info', ({ info, text }) => {
    expect(readFileSync(join(ROOT, info), 'utf8')).toContain(text);
  });

  test.each(FENCES.filter(({ language }) => language === 'yaml'))(
    '$page:$line is a configuration',
    async ({ text }) => {
      const file = join(folder, 'block.yaml');
      writeFileSync(file, text);
      const { exitCode, stderr } = await run(`npx mbridge show-config ${file}`);
      expect(exitCode, stderr).toBe(0);
    },
  );
});

test.each(PAGES)('the links of %s lead to files', (page) => {
  const text = readFileSync(join(ROOT, page), 'utf8');
  const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)].map((match) => match[1] as string);
  expect(links.filter((link) => !existsSync(join(ROOT, dirname(page), link)))).toEqual([]);
});

test.each(PAGES)('the files that %s names exist', (page) => {
  const text = readFileSync(join(ROOT, page), 'utf8');
  const folders = 'bin|src|native|recipes|configs|examples|fixtures|data|test|scripts|bench|docs';
  const named = [...text.matchAll(new RegExp(`\`((?:${folders})/[\\w./-]+\\.\\w+)\``, 'g'))].map((match) => match[1]!);
  const missing = named.filter((file) => !file.startsWith('native/build/') && !existsSync(join(ROOT, file)));
  expect(missing, 'moved or renamed: say where they are now').toEqual([]);
});

test('docs/walk.md names files of every room that a run goes through', () => {
  const text = readFileSync(join(ROOT, 'docs/walk.md'), 'utf8');
  const rooms = ['data', 'train', 'model', 'groups', 'engine', 'checkpoint', 'job', 'config', 'cli'];
  expect(rooms.filter((room) => !text.includes(`\`src/${room}/`))).toEqual([]);
});

test('src/engine/op-table.ts is that of native/core/ops.def', async () => {
  const { exitCode, stderr } = await run('node scripts/op-table.mjs --check');
  expect(exitCode, stderr).toBe(0);
});

test('the pictures of docs/layouts.md show what the code does', async () => {
  const { exitCode, stderr } = await run('node scripts/layout-pictures.mjs --check');
  expect(exitCode, stderr).toBe(0);
});

test('docs/configuration.md is that of configs/schema.json', async () => {
  const { exitCode, stderr } = await run(
    'node scripts/config-docs.mjs --check && node scripts/config-types.mjs --check && node scripts/output-docs.mjs --check',
  );
  expect(exitCode, stderr).toBe(0);
});
