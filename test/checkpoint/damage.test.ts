import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Checkpoint } from '../../src/checkpoint/format/checkpoint.js';
import { tensorName, TENSOR_KINDS } from '../../src/checkpoint/format/checkpoint-format.js';
import { findCheckpoint } from '../../src/checkpoint/format/checkpoint-root.js';
import { modelParameters } from '../../src/families/parameters.js';
import { areaOf, wholeOf } from '../../src/model/parameters/rectangle.js';
import { BIN, mbridge } from '../cli/mbridge.js';
import { mbridgeError } from '../data/helpers.js';
import { loadFixture } from '../helpers/fixture.js';
import { copyFolder, fixture, flipBit, LAYOUT_FLAGS, pretrain, pretrainArgs, temporaryFolder } from './runs.js';

const STEP = 'step-00000003';
const made = { folder: '' };

beforeAll(async () => {
  made.folder = mkdtempSync(join(tmpdir(), 'mbridge-damage-'));
  const args = [...LAYOUT_FLAGS['tp2 dp2'], `checkpoint.save=${join(made.folder, 'saved')}`, 'train.exit_interval=3'];
  const outcome = await pretrain({ folder: made.folder, args });
  if (outcome.exitCode !== 0) throw new Error(outcome.stderr);
});

afterAll(() => rmSync(made.folder, { recursive: true, force: true }));

/** A copy of the saved run. */
function copy(): string {
  return copyFolder(join(made.folder, 'saved'), join(temporaryFolder(), 'saved'));
}

/** Everything that a resume reads: on one rank, all of it. */
async function loadAll(root: string, shape = fixture.shape): Promise<void> {
  const { folder } = await findCheckpoint(root);
  const checkpoint = await Checkpoint.open(folder as string);
  try {
    checkpoint.check(shape, ['language']);
    for (const parameter of modelParameters(shape)) {
      const whole = wholeOf(parameter.shape);
      for (const kind of TENSOR_KINDS) {
        await checkpoint.readFloats(tensorName(kind, parameter.name), whole, new Float32Array(areaOf(whole)));
      }
    }
  } finally {
    await checkpoint.close();
  }
}

const truncate = (path: string): void => truncateSync(path, Math.floor(readFileSync(path).length / 2));

describe('what is damaged is named', () => {
  test('nothing is, as it was saved', async () => {
    await loadAll(copy());
  });

  test.each<[string, string, (path: string) => void, string]>([
    ['a missing shard', 'weights-00001.safetensors', rmSync, 'MISSING_FILE'],
    ['a truncated shard', 'optimizer-00002.safetensors', truncate, 'SIZE'],
    ['a flipped bit in weights', 'weights-00003.safetensors', (path) => flipBit(path, 0.7), 'CHECKSUM'],
    ['a flipped bit in moments', 'optimizer-00000.safetensors', (path) => flipBit(path, 0.99), 'CHECKSUM'],
    ['a flipped bit in a header', 'weights-00000.safetensors', (path) => flipBit(path, 0.001), 'CHECKSUM'],
    ['a truncated index', 'index.json', truncate, 'SIZE'],
    ['a missing index', 'index.json', rmSync, 'MISSING_FILE'],
    ['a flipped bit in the index', 'index.json', (path) => flipBit(path, 0.5), 'CHECKSUM'],
    ['a flipped bit in the state', 'state.json', (path) => flipBit(path, 0.5), 'CHECKSUM'],
    ['a truncated commit record', 'commit.json', truncate, 'JSON'],
    ['a checksum that was changed', 'commit.json', ofOtherChecksum, 'CHECKSUM'],
    ['a commit record that is another value', 'commit.json', (path) => writeFileSync(path, '[]'), 'JSON'],
    ['a commit record of a later version', 'commit.json', ofVersion2, 'VERSION'],
  ])('%s', async (_, name, damage, code) => {
    const root = copy();
    const path = join(root, STEP, name);
    damage(path);
    const error = await mbridgeError(() => loadAll(root));
    expect(error).toMatchObject({ code: `MB_CHECKPOINT_${code}`, exitCode: 7 });
    expect(error.message).toContain(path);
    expect(error.message).not.toContain(': :');

    const verified = await mbridge(['checkpoint', 'verify', root]);
    expect(verified.exitCode).toBe(7);
    expect(verified.stderr).toContain(path);
  });

  test('a folder without its commit marker', async () => {
    const root = copy();
    rmSync(join(root, STEP, 'commit.json'));
    expect(await findCheckpoint(root)).toEqual({ folder: null, warnings: [expect.stringContaining(STEP)] });
    const direct = await mbridgeError(() => findCheckpoint(join(root, STEP)));
    expect(direct).toMatchObject({ code: 'MB_CHECKPOINT_NOT_COMMITTED', exitCode: 7 });
  });

  test("another model's checkpoint, by shape or by depth", async () => {
    const index = join(made.folder, 'saved', STEP, 'index.json');
    const shallow = { ...fixture.shape, numLayers: 3 };
    const deep = { ...fixture.shape, numLayers: 5 };
    const untied = { ...fixture.shape, tieWordEmbeddings: false };
    for (const shape of [loadFixture('qwen3-masked').shape, shallow, deep, untied]) {
      const error = await mbridgeError(() => loadAll(join(made.folder, 'saved'), shape));
      expect(error).toMatchObject({ code: 'MB_CHECKPOINT_MODEL', exitCode: 7 });
      expect(error.message).toContain(index);
    }
  });

  test('a Hugging Face folder is no checkpoint to resume from', async () => {
    const error = await mbridgeError(() => findCheckpoint(fixture.folder));
    expect(error).toMatchObject({ code: 'MB_CHECKPOINT_NOT_A_CHECKPOINT', exitCode: 7 });
    expect(error.hint).toContain('pretrained_checkpoint');
  });
});

test('a damaged checkpoint ends a resumed run with exit code 7', async () => {
  const root = copy();
  const path = join(root, STEP, 'optimizer-00003.safetensors');
  flipBit(path, 0.9);
  const outcome = await pretrain({ folder: temporaryFolder(), args: ['--nproc', '2', `checkpoint.load=${root}`] });
  expect(outcome.exitCode, outcome.stderr).toBe(7);
  expect(outcome.stderr).toContain(path);
});

test('a disk that is full in the middle of a save ends the run with exit code 7; the previous checkpoint stays', async () => {
  const root = copy();
  const before = snapshot(root);
  const folder = temporaryFolder();
  const args = pretrainArgs({ folder, args: ['--nproc', '1', `checkpoint.load=${root}`, `checkpoint.save=${root}`] });
  // The system refuses to let any file grow over 512 KiB: shards are larger.
  const command = ['-c', 'ulimit -f 512; exec "$0" "$@"', process.execPath, BIN, ...args];
  const outcome = await execa('bash', command, { reject: false, env: { NO_COLOR: '1' } });
  expect(outcome.exitCode, outcome.stderr).toBe(7);
  expect(outcome.stderr).toMatch(/cannot write .*\.tmp-step-00000012-\w+\/(weights|optimizer)-00000\.safetensors/);
  expect(snapshot(root)).toEqual(before);
  await loadAll(root);
});

/** Names of what is committed, with the pointer. */
function snapshot(root: string): unknown {
  const names = readdirSync(root).filter((name) => !name.startsWith('.tmp-'));
  return [
    names.sort(),
    readFileSync(join(root, 'latest'), 'utf8'),
    readFileSync(join(root, STEP, 'commit.json'), 'utf8'),
  ];
}

function ofVersion2(path: string): void {
  writeFileSync(path, readFileSync(path, 'utf8').replace('"version": 1', '"version": 2'));
}

function ofOtherChecksum(path: string): void {
  writeFileSync(path, readFileSync(path, 'utf8').replace(/"[0-9a-f]{8}"/, '"01234567"'));
}
