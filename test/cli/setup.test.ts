import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { mbridge } from './mbridge.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-setup-'));
const tools = join(folder, 'tools');
const target = join(folder, 'libs');
afterAll(() => {
  rmSync(folder, { recursive: true });
});

beforeEach(() => {
  for (const path of [tools, target]) rmSync(path, { recursive: true, force: true });
  mkdirSync(tools);
});

/**
 * Puts a `pip3` on an otherwise empty PATH: the real one would download 1.6 GB. It writes down how it was called, and
 * `install`s what `body` says into $TARGET.
 */
function pip(body: string): void {
  const script = [
    '#!/bin/sh',
    'export PATH=/usr/bin:/bin',
    '[ "$1" = --version ] && exit 0',
    `echo "$@" >>${folder}/calls`,
    'while [ "$1" != --target ]; do shift; done',
    'TARGET=$2',
    'put() { mkdir -p "$TARGET/nvidia/$1/lib" && echo "$3" >"$TARGET/nvidia/$1/lib/$2"; }',
    body,
  ];
  rmSync(join(folder, 'calls'), { force: true });
  writeFileSync(join(tools, 'pip3'), script.join('\n'));
  chmodSync(join(tools, 'pip3'), 0o755);
}
const ALL = 'put cublas libcublasLt.so.13 a; put nccl libnccl.so.2 a; put cudnn libcudnn.so.9 a';
const calls = (): string[] => readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n');
const setup = (...args: string[]) => mbridge(['setup-cuda', '--into', target, ...args], { PATH: tools });

describe('mbridge setup-cuda', () => {
  test('installs all packages by one call of pip, which is given its own options', async () => {
    pip(ALL);
    const { exitCode, stderr } = await setup('--index-url', 'http://index', '--no-cache-dir');
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain(`installed in ${target}; set MBRIDGE_CUDA_LIBS=${target}`);
    expect(existsSync(join(target, 'nvidia/cublas/lib/libcublasLt.so.13'))).toBe(true);
    expect(existsSync(`${target}.part`)).toBe(false);
    expect(calls()).toHaveLength(1);
    expect(calls()[0]).toMatch(
      /^install --index-url http:\/\/index --no-cache-dir --no-deps --target .* nvidia-cudnn-/,
    );
  });

  test('takes later versions where the measured ones are not to be had', async () => {
    pip(`case "$*" in *==*) exit 1;; esac; ${ALL}`);
    const { exitCode, stderr } = await setup();
    expect(exitCode, stderr).toBe(0);
    expect(calls().map((line) => line.includes('=='))).toEqual([true, false]);
  });

  test.each([
    ['pip fails', 'exit 3', 'MB_SETUP_INSTALL'],
    ['pip leaves a library out', 'put cublas libcublasLt.so.13 a', 'MB_SETUP_FILES'],
  ])('where %s, what was there before stays', async (_, body, code) => {
    mkdirSync(target);
    writeFileSync(join(target, 'before'), '');
    pip(body);
    const { exitCode, stderr } = await setup();
    expect(exitCode).toBe(4);
    expect(stderr).toContain(`error ${code}: `);
    expect(existsSync(join(target, 'before'))).toBe(true);
    expect(existsSync(`${target}.part`)).toBe(false);
  });

  test('names every pip that was tried', async () => {
    const { exitCode, stderr } = await setup();
    expect(exitCode).toBe(4);
    expect(stderr).toMatch(/MB_SETUP_PIP: .*python3 -m pip: not found; .*pip3: not found; uv pip: not found/);
  });
});
