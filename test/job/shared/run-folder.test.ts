import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { RunConfig } from '../../../src/config/schema.js';
import {
  createRunFolder,
  defaultRunFolder,
  writeAtomically,
  writeRunRecord,
} from '../../../src/job/shared/run-folder.js';

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-test-'));
  onTestFinished(() => {
    rmSync(folder, { recursive: true });
  });
  return folder;
}

it('names the folder by time and recipe', () => {
  const now = new Date(2026, 0, 2, 3, 4, 5);
  expect(defaultRunFolder('qwen3-tiny', now)).toBe('runs/20260102-030405-qwen3-tiny');
  expect(defaultRunFolder('../my run.yaml', now, 'r')).toBe('r/20260102-030405-.._my_run.yaml');
});

it('never shares a default folder between runs', () => {
  const cwd = process.cwd();
  process.chdir(temporary());
  onTestFinished(() => {
    process.chdir(cwd);
  });
  const folders = [1, 2, 3].map(() => createRunFolder('a', undefined, [0]));
  expect(new Set(folders).size).toBe(3);
  expect(readdirSync('runs')).toHaveLength(3);
});

it('keeps what is in a folder that was asked for, but old failure reports', () => {
  const folder = temporary();
  mkdirSync(join(folder, 'rank-5'));
  mkdirSync(join(folder, 'checkpoints'));
  for (const file of ['rank-5/error.json', 'rank-5/log.ndjson', 'checkpoints/error.json'])
    writeFileSync(join(folder, file), '{}');
  expect(createRunFolder('a', folder, [0])).toBe(folder);
  expect(readdirSync(folder, { recursive: true }).sort()).toEqual([
    'checkpoints',
    'checkpoints/error.json',
    'rank-0',
    'rank-5',
    'rank-5/log.ndjson',
  ]);
});

it('leaves no temporary file when a write fails', () => {
  const folder = temporary();
  mkdirSync(join(folder, 'taken'));
  expect(() => {
    writeAtomically(join(folder, 'taken'), 'x');
  }).toThrow(/EISDIR/);
  expect(readdirSync(folder)).toEqual(['taken']);
});

it('says that the record cannot be written', async () => {
  const ran = { name: 'a', argv: [], device: 'cpu' as const, nproc: 1, layout: {}, config: {} as RunConfig };
  const record = { ...ran, savesInRunFolder: false, worker: null };
  await expect(writeRunRecord(join(temporary(), 'gone'), record)).rejects.toMatchObject({
    code: 'MB_RUN_FOLDER',
    exitCode: 7,
  });
});
