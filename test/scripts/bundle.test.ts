import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { needsTestPrograms } from '../helpers/test-programs.js';

const ROOT = join(import.meta.dirname, '..', '..');

/** Unpacked bundle, and what the packing and each run printed. */
const folder = mkdtempSync(join(tmpdir(), 'mbridge-bundle-test-'));
const archive = join(folder, 'mbridge.tar.xz');
// Tools of the system, but no Node.js: it is what the bundle brings.
const tools = join(folder, 'tools');
const unpacked = (): string => join(folder, readdirSync(folder).find((name) => name.startsWith('mbridge-')) ?? 'none');

async function start(args: readonly string[], program = join(unpacked(), 'mbridge')) {
  const env = { PATH: tools, HOME: folder };
  return execa(program, args, { cwd: folder, env, extendEnv: false, reject: false });
}

needsTestPrograms();
beforeAll(async () => {
  const script = join(ROOT, 'scripts', 'bundle.mjs');
  await execa(process.execPath, [script, '--out', archive, '--level', '0', '--no-cuda']);
  await execa('tar', ['-C', folder, '-xJf', archive]);
  await execa('mkdir', [tools]);
  symlinkSync('/usr/bin/readlink', join(tools, 'readlink'));
}, 120_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('the bundle brings what it runs on, and nothing that only the build needs', () => {
  for (const path of ['runtime/node', 'native/build/mbridge.node', 'native/build/mbridge_native_tests']) {
    expect(existsSync(join(unpacked(), path)), path).toBe(true);
  }
  const files = readdirSync(unpacked(), { recursive: true, encoding: 'utf8' });
  expect(files.filter((name) => name.endsWith('.d.ts') || name.endsWith('.map'))).toEqual([]);
  expect(files.filter((name) => /node_modules\/(typescript|vitest|eslint|node-addon-api)\//.test(name))).toEqual([]);
});

test('it answers from any folder, also through a link, with no Node.js on the path', async () => {
  symlinkSync(join(unpacked(), 'mbridge'), join(folder, 'link'));
  const direct = await start(['--help']);
  const linked = await start(['--help'], join(folder, 'link'));
  expect(direct.stderr).toBe('');
  expect(direct.stdout).toContain('pretrain');
  expect(linked.stdout).toBe(direct.stdout);
});

test('it trains, with its own text as data', async () => {
  const data = ['dataset.type=text', 'dataset.path=builtin:moby-dick'];
  const small = ['model.seq_length=64', 'train.global_batch_size=2', 'train.train_iters=2'];
  const run = await start(['pretrain', 'qwen3-tiny', '--device', 'cpu', '--nproc', '2', '--json', ...data, ...small]);
  expect(run.stderr).not.toContain('error');
  const lines = run.stdout.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.filter(({ type }) => type === 'step').map(({ step }) => step)).toEqual([1, 2]);
  expect(lines.at(-1)).toMatchObject({ type: 'result', ok: true });
});

test('packing the same build again gives the same bytes', async () => {
  const again = join(folder, 'again.tar.xz');
  const script = join(ROOT, 'scripts', 'bundle.mjs');
  await execa(process.execPath, [script, '--out', again, '--level', '0', '--no-cuda']);
  await execa('cmp', [archive, again]);
}, 60_000);
