import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { readRecords } from '../../src/checkpoint/format/checkpoint-files.js';
import { findCheckpoint } from '../../src/checkpoint/format/checkpoint-root.js';
import { HfFolder } from '../../src/checkpoint/hf/hf-folder.js';
import { modelOfSizes, readHfFiles, readHfModel } from '../../src/checkpoint/hf/hf-files.js';
import { mbridgeError } from '../data/helpers.js';
import { loadFixture } from '../helpers/fixture.js';

const root = mkdtempSync(join(tmpdir(), 'mbridge-links-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const fixture = loadFixture('qwen3-tied');
const WEIGHTS = 'model.safetensors';
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++), 'model');
  cpSync(fixture.folder, folder, { recursive: true });
});

const openWeights = async (path: string): Promise<void> => (await HfFolder.open(path)).close();

describe('links of a Hugging Face folder', () => {
  test('in the cache of the Hub, and inside the folder, are followed', async () => {
    const cache = join(folder, '..', 'models--a--b');
    const [snapshot, blobs] = [join(cache, 'snapshots', 'abc'), join(cache, 'blobs')];
    for (const path of [snapshot, blobs]) mkdirSync(path, { recursive: true });
    for (const name of readdirSync(folder)) {
      renameSync(join(folder, name), join(blobs, `${name}-hash`));
      symlinkSync(`../../blobs/${name}-hash`, join(snapshot, name));
    }
    await openWeights(snapshot);
    expect((await readHfFiles(snapshot)).has('config.json')).toBe(true);
    const link = join(folder, '..', 'link-to-folder');
    symlinkSync(snapshot, link);
    await openWeights(link);
    renameSync(join(snapshot, WEIGHTS), join(snapshot, 'other'));
    symlinkSync('other', join(snapshot, WEIGHTS));
    await openWeights(snapshot);
  });

  test.each<[string, string, (target: string) => void]>([
    ['weights', WEIGHTS, (path) => cpSync(join(fixture.folder, WEIGHTS), path)],
    ['an index', 'model.safetensors.index.json', (path) => writeFileSync(path, '{"weight_map":{}}')],
  ])('%s out of it are refused', async (_, name, make) => {
    rmSync(join(folder, WEIGHTS));
    const secret = join(root, `elsewhere-${made}`);
    make(secret);
    symlinkSync(secret, join(folder, name));
    const error = await mbridgeError(() => openWeights(folder));
    expect(error.message).toContain(`${join(folder, name)}: is a link that leads out of its folder`);
    expect(error.exitCode).toBe(7);
  });

  test('a tokenizer out of it is not taken along', async () => {
    symlinkSync('/etc/passwd', join(folder, 'tokenizer.json'));
    const error = await mbridgeError(() => readHfFiles(folder));
    expect(error.message).toMatch(/tokenizer\.json: is a link that leads out/);
  });
});

describe('what is no file is not waited for', () => {
  test.each(['pipe', 'folder', 'device'])('a %s for the weights', async (kind) => {
    const path = join(folder, WEIGHTS);
    rmSync(path);
    if (kind === 'pipe') execFileSync('mkfifo', [path]);
    else if (kind === 'folder') mkdirSync(path);
    else symlinkSync('/dev/zero', path);
    expect(await mbridgeError(() => openWeights(folder))).toMatchObject({ exitCode: 7 });
  });

  test.each(['tokenizer.json', 'config.json'])('a pipe called %s', async (name) => {
    rmSync(join(folder, name), { force: true });
    execFileSync('mkfifo', [join(folder, name)]);
    const error = await mbridgeError(() => readHfFiles(folder));
    expect(error.message).toContain(name);
  });

  test.each(['commit.json', 'latest'])('a pipe for the %s of a checkpoint', async (name) => {
    execFileSync('mkfifo', [join(folder, name)]);
    const error = await mbridgeError(() => (name === 'latest' ? findCheckpoint(folder) : readRecords(folder)));
    expect(error.exitCode).toBe(7);
  });
});

test.each<[Record<string, unknown>, RegExp]>([
  [{}, /model\.vocab_size: /],
  [{ vocab_size: -1 }, /model\.vocab_size: /],
  [{ ...readHfModel(fixture.folder), head_dim: { valueOf: 1 } }, /model\.head_dim: /],
  [{ ...readHfModel(fixture.folder), num_attention_heads: { toString: 1 } }, /model\.num_attention_heads: /],
])('the sizes of a checkpoint that make no model: %#', async (sizes, message) => {
  const error = await mbridgeError(() => modelOfSizes(sizes));
  expect(error.message).toMatch(message);
  expect(error.exitCode).toBe(7);
});
