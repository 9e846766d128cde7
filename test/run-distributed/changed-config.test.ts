import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, describe, expect, test } from 'vitest';
import { compiledFile } from '../../src/base/package-root.js';
import { setupGroups, setupOptimizer, setupRunData, provideDistributedModel } from '../../src/train/setup.js';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { mbridge } from '../cli/mbridge.js';
import { mbridgeError } from '../data/helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-changed-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const LIBRARY = compiledFile('index.js');

/** Runs a program that changes a recipe's configuration by hand and starts it. */
async function program(
  change: string,
  call = 'pretrain(cfg, { nproc: 1 })',
): Promise<{ exitCode: unknown; stderr: string }> {
  const file = join(folder, 'program.mjs');
  writeFileSync(
    file,
    `import { pretrain, qwen3TinyPretrainConfig, runDistributed, runMain } from ${JSON.stringify(LIBRARY)};
     const cfg = qwen3TinyPretrainConfig({ train_iters: 1, seq_length: 16 });
     process.exitCode = await runMain(() => { ${change}; return ${call}; });`,
  );
  const { exitCode, stderr } = await execa(process.execPath, [file], { cwd: folder, reject: false });
  return { exitCode, stderr };
}

describe('a configuration changed by hand is checked when the run starts', () => {
  test.each<[string, string | undefined, string]>([
    ['cfg.optimizer.lr = -1', undefined, 'MB_CONFIG_VALUE: optimizer.lr: expected a number above 0, got -1'],
    ['cfg.optimizer.lr = -1', 'runDistributed({ config: cfg, nproc: 1 })', 'MB_CONFIG_VALUE: optimizer.lr: expected'],
    ['cfg.train.global_batch_size = 3.5', undefined, 'MB_CONFIG_VALUE: train.global_batch_size: expected an integer'],
    ['cfg.train.global_batch_size = 7', 'pretrain(cfg, { nproc: 2 })', 'MB_CONFIG_LAYOUT: train.global_batch_size: 7'],
    ['cfg.train.iters = 3', undefined, 'MB_CONFIG_UNKNOWN_KEY: train.iters: unknown key'],
    ['delete cfg.model', undefined, 'MB_CONFIG_MISSING: model: missing'],
    ['cfg.dataset.path = "*.txt"', undefined, 'MB_DATA_UNREADABLE: cannot read data file *.txt: no such file'],
    ['cfg.dataset.path = "~none/x"', undefined, 'MB_CONFIG_VALUE: dataset.path: ~none/x begins with ~none'],
    ['', 'pretrain(undefined)', 'the configuration is no object of sections'],
  ])('%s %s', async (change, call, message) => {
    const { exitCode, stderr } = await program(change, call);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/MB_INTERNAL|^\s+at /m);
    expect(exitCode).toBe(message.includes('MB_DATA') ? 7 : 3);
    expect(readdirSync(folder)).toEqual(['program.mjs']); // no run was begun
  });

  test('a change that is right is what runs', async () => {
    const { exitCode, stderr } = await program(
      'cfg.optimizer.lr = 1e-3; cfg.optimizer.min_lr = 0; cfg.train.global_batch_size = 1',
    );
    expect(exitCode, stderr).toBe(0);
    rmSync(join(folder, 'runs'), { recursive: true });
  });

  test.each<[string, (cfg: ReturnType<typeof qwen3TinyPretrainConfig>) => unknown]>([
    ['setupGroups', (cfg) => setupGroups(cfg, { runtime: {} as never, worldSize: 1 })],
    [
      'provideDistributedModel',
      (cfg) => provideDistributedModel(cfg, { pgCollection: {} as never, device: {} as never }),
    ],
    ['setupOptimizer', (cfg) => setupOptimizer(cfg, {} as never, { pgCollection: {} as never })],
    ['setupRunData', (cfg) => setupRunData(cfg, { dp: { rank: 0, size: 1 } as never })],
  ])('%s checks too', async (_, call) => {
    const cfg = qwen3TinyPretrainConfig();
    cfg.optimizer.lr = -1;
    expect(await mbridgeError(() => call(cfg))).toMatchObject({ code: 'MB_CONFIG_VALUE', exitCode: 3 });
  });
});

describe('data that cannot be read leaves no run behind', () => {
  test.each<[string, () => void, number, RegExp]>([
    ['none.txt', () => undefined, 7, /^error MB_DATA_UNREADABLE: cannot read data file \S*none\.txt: no such file/m],
    [
      'pipe',
      () => execFileSync('mkfifo', [join(folder, 'pipe')]),
      7,
      /^error MB_DATA_UNREADABLE: .*is a pipe, not a file/m,
    ],
    [
      'a.parquet',
      () => writeFileSync(join(folder, 'a.parquet'), 'PAR1\0'),
      7,
      /^error MB_DATA_FORMAT: .*is a Parquet file/m,
    ],
    ['a.jsonl', () => writeFileSync(join(folder, 'a.jsonl'), '{"text":"a"}\n'), 7, /set dataset\.type=jsonl/],
  ])('%s', async (name, make, exitCode, message) => {
    make();
    const args = ['pretrain', 'qwen3-tiny', '--nproc', '2', `dataset.path=${join(folder, name)}`];
    const outcome = await mbridge([...args, '--log-dir', join(folder, 'run')]);
    expect(outcome.stderr).toMatch(message);
    expect(outcome.exitCode).toBe(exitCode);
    expect(readdirSync(folder)).not.toContain('run');
  });
});
