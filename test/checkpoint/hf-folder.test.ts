import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { HfFolder } from '../../src/checkpoint/hf/hf-folder.js';
import { modelParameters } from '../../src/families/parameters.js';
import { SafetensorsFile } from '../../src/checkpoint/files/safetensors.js';
import type { ModelShape } from '../../src/families/model-shape.js';
import { mbridgeError } from '../data/helpers.js';
import { writeSafetensors } from './write-safetensors.js';

const TIED = join(import.meta.dirname, '../../fixtures/qwen3-tied');

const tiny: ModelShape = {
  family: 'qwen3',
  vocabSize: 512,
  hiddenSize: 64,
  intermediateSize: 192,
  numLayers: 4,
  numHeads: 8,
  numKvHeads: 4,
  headDim: 16,
  rmsNormEps: 1e-6,
  ropeTheta: 1e6,
  ropeScaling: null,
  tieWordEmbeddings: true,
  padTokenId: null,
  initializerRange: 0.02,
  maxPositionEmbeddings: 512,
};
const shapes: Record<string, ModelShape> = {
  'qwen3-tied': tiny,
  'qwen3-untied': {
    ...tiny,
    ...{ vocabSize: 384, hiddenSize: 96, intermediateSize: 256, numHeads: 4, headDim: 32, tieWordEmbeddings: false },
  },
  'qwen3-masked': {
    ...tiny,
    ...{ vocabSize: 320, hiddenSize: 48, intermediateSize: 128, numHeads: 4, numKvHeads: 2, headDim: 24 },
  },
};

function tempFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'mbridge-hf-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function open(path: string): Promise<HfFolder> {
  const folder = await HfFolder.open(path);
  onTestFinished(() => folder.close());
  return folder;
}

/** The tied fixture as two shards with an index. */
async function sharded(): Promise<string> {
  const dir = tempFolder();
  const source = await SafetensorsFile.open(join(TIED, 'model.safetensors'));
  const weightMap: Record<string, string> = {};
  const entries = [...source.tensors.values()];
  for (const part of [0, 1]) {
    const file = `model-0000${part + 1}-of-00002.safetensors`;
    const mine = entries.filter((_, i) => i % 2 === part);
    for (const { name } of mine) weightMap[name] = file;
    writeSafetensors(
      join(dir, file),
      await Promise.all(mine.map(async (spec) => [spec, await source.readRows(spec.name)] as const)),
    );
  }
  await source.close();
  writeIndex(dir, { weight_map: weightMap });
  return dir;
}
const writeIndex = (dir: string, index: unknown): void =>
  writeFileSync(join(dir, 'model.safetensors.index.json'), typeof index === 'string' ? index : JSON.stringify(index));

describe('parameters', () => {
  it.each(Object.keys(shapes))('%s: names and shapes are those of the file', async (name) => {
    const folder = await open(join(TIED, '..', name));
    const parameters = modelParameters(shapes[name]!);
    folder.check(parameters);
    expect(new Set(parameters.map((p) => p.name))).toEqual(new Set(folder.names()));
    expect(parameters.every((p) => p.shape.length === (p.name.includes('norm') ? 1 : 2))).toBe(true);
  });

  it.each([
    // Sizes of the published configs; totals as Hugging Face counts them.
    ['0.6B', { hiddenSize: 1024, intermediateSize: 3072, numLayers: 28, numHeads: 16 }, 596_049_920],
    ['4B', { hiddenSize: 2560, intermediateSize: 9728, numLayers: 36, numHeads: 32 }, 4_022_468_096],
    [
      '8B',
      { hiddenSize: 4096, intermediateSize: 12288, numLayers: 36, numHeads: 32, tieWordEmbeddings: false },
      8_190_735_360,
    ],
  ])('%s adds up', (_, sizes, total) => {
    const shape = { ...tiny, vocabSize: 151936, numKvHeads: 8, headDim: 128, ...sizes };
    const count = modelParameters(shape).reduce((sum, p) => sum + p.shape.reduce((a, b) => a * b, 1), 0);
    expect(count).toBe(total);
  });
});

describe('folders', () => {
  it('reads slices of a sharded folder as of a single file', async () => {
    const [one, many] = [await open(TIED), await open(await sharded())];
    expect(new Set(many.names())).toEqual(new Set(one.names()));
    for (const name of one.names()) expect(await many.readSlice(name)).toEqual(await one.readSlice(name));
    const name = 'model.layers.3.mlp.down_proj.weight';
    const whole = await one.readSlice(name);
    const slice = await many.readSlice(name, { rowStart: 8, rowEnd: 10, colStart: 48, colEnd: 96 });
    const row = (r: number): number[] => [...whole.subarray(r * 192 + 48, r * 192 + 96)];
    expect([...slice]).toEqual([...row(8), ...row(9)]);
    const norm = await many.readSlice('model.norm.weight', { rowStart: 16, rowEnd: 32 });
    expect([...norm]).toEqual([...(await one.readSlice('model.norm.weight')).subarray(16, 32)]);
  });

  it.each<[string, (dir: string) => void, string, RegExp]>([
    [
      'a missing shard',
      (dir) => rmSync(join(dir, 'model-00002-of-00002.safetensors')),
      'MB_SAFETENSORS_OPEN',
      /00002-of-00002.*no such file/,
    ],
    [
      'a truncated shard',
      (dir) => truncateSync(join(dir, 'model-00001-of-00002.safetensors'), 100_000),
      'MB_SAFETENSORS_TRUNCATED',
      /00001-of-00002.*expected \d+ bytes, found 100000/,
    ],
    [
      'a truncated index',
      (dir) => truncateSync(join(dir, 'model.safetensors.index.json'), 99),
      'MB_HF_INDEX',
      /index\.json: bad JSON/,
    ],
    ['an index of nothing', (dir) => writeIndex(dir, {}), 'MB_HF_INDEX', /no "weight_map"/],
    ['null for an index', (dir) => writeIndex(dir, 'null'), 'MB_HF_INDEX', /no "weight_map"/],
    [
      'a shard elsewhere',
      (dir) => writeIndex(dir, { weight_map: { a: '../a.safetensors' } }),
      'MB_HF_INDEX',
      /"\.\.\/a\.safetensors"/,
    ],
    [
      'a shard without a tensor',
      (dir) => writeIndex(dir, { weight_map: { 'model.norm.weights': 'model-00001-of-00002.safetensors' } }),
      'MB_HF_MISSING_TENSOR',
      /has no tensor model\.norm\.weights/,
    ],
  ])('%s', async (_, damage, code, message) => {
    const dir = await sharded();
    damage(dir);
    const error = await mbridgeError(() => open(dir));
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ code, exitCode: 7 });
    expect(error.hint).toBeTruthy();
  });

  it.each([
    ['no folder', '/nonexistent/model', /\/nonexistent\/model does not exist/],
    ['a file', join(TIED, 'config.json'), /config\.json is not a folder/],
    ['a folder without weights', import.meta.dirname, /has neither model\.safetensors nor/],
  ])('%s', async (_, path, message) => {
    const error = await mbridgeError(() => open(path));
    expect(error).toMatchObject({ code: 'MB_HF_NO_WEIGHTS', exitCode: 7 });
    expect(error.message).toMatch(message);
  });

  it('a truncated single file', async () => {
    const dir = tempFolder();
    copyFileSync(join(TIED, 'model.safetensors'), join(dir, 'model.safetensors'));
    truncateSync(join(dir, 'model.safetensors'), 1_000_000);
    const error = await mbridgeError(() => open(dir));
    const expected = readFileSync(join(TIED, 'model.safetensors')).length;
    expect(error).toMatchObject({
      code: 'MB_SAFETENSORS_TRUNCATED',
      exitCode: 7,
      details: { expected, found: 1_000_000 },
    });
  });

  it.each<[string, ModelShape, string, RegExp]>([
    [
      'another vocabulary',
      { ...tiny, vocabSize: 500 },
      'MB_HF_SHAPE',
      /model\.embed_tokens\.weight is \[512, 64\], the model expects \[500, 64\]$/,
    ],
    [
      'more layers',
      { ...tiny, numLayers: 5 },
      'MB_HF_MISSING_TENSOR',
      /no tensor model\.layers\.4\.input_layernorm\.weight \(and 10 more/,
    ],
    ['an untied head', { ...tiny, tieWordEmbeddings: false }, 'MB_HF_MISSING_TENSOR', /no tensor lm_head\.weight$/],
  ])('weights of another model: %s', async (_, shape, code, message) => {
    const folder = await open(TIED);
    const error = await mbridgeError(() => folder.check(modelParameters(shape)));
    expect(error).toMatchObject({ code, exitCode: 7 });
    expect(error.message).toMatch(message);
  });
});
