import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { loadFixture } from '../helpers/fixture.js';
import { fixtureConfig } from '../parity/run-fixture.js';
import { mbridge } from './mbridge.js';

const fixture = loadFixture('qwen3-tied');
let folder: string;
let model: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'mbridge-bad-'));
  model = join(folder, 'model');
  cpSync(fixture.folder, model, { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Processes of any run in the test's folder that are still alive. */
function leftovers(): string[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        const alive = !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
        return alive && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`MBRIDGE_RUN_DIR=${folder}`);
      } catch {
        return false;
      }
    });
}

function configFile(change: (config: Record<string, Record<string, unknown>>) => void): string {
  const config = fixtureConfig(fixture) as Record<string, Record<string, unknown>>;
  config['model']!['hf_path'] = model;
  config['checkpoint']!['pretrained_checkpoint'] = model;
  change(config);
  const file = join(folder, 'run.yaml');
  writeFileSync(file, stringify(config));
  return file;
}

async function fails(
  args: readonly string[],
  change: (config: Record<string, Record<string, unknown>>) => void = () => undefined,
): Promise<{ exitCode: number | undefined; error: string }> {
  const before = new Set(readdirSync('/dev/shm'));
  const file = configFile(change);
  const logs = ['--log-dir', join(folder, `run-${Math.random()}`)];
  const { exitCode, stdout, stderr } = await mbridge([
    'pretrain',
    '--config',
    file,
    '--device',
    'cpu',
    ...logs,
    ...args,
  ]);
  const error = stderr.slice(stderr.search(/^error/m));
  expect(stdout).not.toMatch(/^step/m);
  expect(error, stderr).not.toMatch(/^\s+at /m);
  expect(leftovers()).toEqual([]);
  expect(readdirSync('/dev/shm').filter((name) => !before.has(name))).toEqual([]);
  return { exitCode, error };
}

describe('impossible layouts end with 3 before anything starts', () => {
  test.each<[string, string[], RegExp]>([
    [
      'tp that does not divide the heads',
      ['--nproc', '3', '--tp-size', '3'],
      /3 does not divide .*num_attention_heads 8/,
    ],
    ['tp that does not divide the world', ['--nproc', '3', '--tp-size', '2'], /does not divide the 3 processes/],
    ['more stages than layers', ['--nproc', '8', '--pp-size', '8'], /8 stages are more than the 4 layers/],
    [
      'chunks that do not divide the layers',
      ['--nproc', '2', '--pp-size', '2', '--vp-size', '3'],
      /does not divide the 4 layers/,
    ],
    [
      'an unknown key',
      ['--nproc', '1', 'model.num_layer=3'],
      /model\.num_layer=3 model\.num_layer: unknown key \(did you mean/,
    ],
    ['Gloo', ['--nproc', '1', 'dist.use_gloo_process_groups=true'], /use_gloo_process_groups/],
    [
      'chunks that do not divide the sequence',
      ['--nproc', '2', '--cp-size', '2', 'model.seq_length=30'],
      /--cp-size model\.context_parallel_size: 2 x 2 chunks do not divide the seq_length of 30; make that a multiple of 4/,
    ],
  ])('%s', async (_, args, message) => {
    const { exitCode, error } = await fails(args);
    expect(error).toMatch(message);
    expect(exitCode).toBe(3);
  });
});

describe('bad files end with 7, naming the file', () => {
  const line = (ids: number[]): string => JSON.stringify({ input_ids: ids });
  const ids = (n: number): number[] => Array.from({ length: n }, (_, i) => i % 500);
  test.each<[string, () => (config: Record<string, Record<string, unknown>>) => void, RegExp]>([
    [
      'a missing folder',
      () => (config) => (config['checkpoint']!['pretrained_checkpoint'] = join(folder, 'absent')),
      /absent does not exist/,
    ],
    [
      'a truncated safetensors file',
      () => {
        const broken = join(folder, 'broken');
        cpSync(fixture.folder, broken, { recursive: true });
        truncateSync(join(broken, 'model.safetensors'), 100_000);
        return (config) => (config['checkpoint']!['pretrained_checkpoint'] = broken);
      },
      /broken\/model\.safetensors/,
    ],
    [
      'a sample of the wrong length',
      () => {
        writeFileSync(join(folder, 'short.jsonl'), `${line(ids(65))}\n${line(ids(30))}\n`);
        return (config) => (config['dataset']!['path'] = join(folder, 'short.jsonl'));
      },
      /short\.jsonl:2\b.*30/,
    ],
    [
      'a token beyond the vocabulary',
      () => {
        writeFileSync(join(folder, 'beyond.jsonl'), `${line([...ids(64), 512])}\n`);
        return (config) => (config['dataset']!['path'] = join(folder, 'beyond.jsonl'));
      },
      /beyond\.jsonl:1\b.*512/,
    ],
  ])('%s', async (_, prepare, message) => {
    const { exitCode, error } = await fails(['--nproc', '2', '--tp-size', '2'], prepare());
    expect(error).toMatch(message);
    expect(exitCode).toBe(7);
  });
});

test('kill -9 of one worker ends the run within 5 s with 5, naming the rank', async () => {
  const file = configFile((config) => {
    config['train']!['train_iters'] = 100_000;
    config['scheduler']!['lr_decay_iters'] = 100_000;
  });
  const bin = join(import.meta.dirname, '../../bin/mbridge.js');
  const run = join(folder, 'killed');
  const layout = ['--nproc', '4', '--tp-size', '2', '--pp-size', '2', '--device', 'cpu'];
  const child = spawn(process.execPath, [bin, 'pretrain', '--config', file, ...layout, '--log-dir', run]);
  let [stdout, stderr] = ['', ''];
  child.stderr.on('data', (chunk) => (stderr += String(chunk)));
  const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk) => (/step +5\//.test((stdout += String(chunk))) ? resolve() : undefined));
    child.on('exit', () => reject(new Error(stderr)));
  });
  const victim = leftovers().find((pid) => /(^|\0)RANK=2\0/.test(readFileSync(`/proc/${pid}/environ`, 'utf8')));
  const killed = performance.now();
  process.kill(Number(victim), 'SIGKILL');
  expect(await ended).toBe(5);
  expect(performance.now() - killed).toBeLessThan(5000);
  expect(stderr).toMatch(/rank 2\b.*SIGKILL/);
  expect(leftovers()).toEqual([]);
});
