import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { DatasetConfig } from '../../src/config/schema.js';
import { resolveTextPath } from '../../src/data/builtin-text.js';
import { openDataset } from '../../src/data/open-dataset.js';
import type { Dataset } from '../../src/data/dataset.js';
import { mbridgeError, tempFile, TOGETHER } from './helpers.js';

function open(dataset: DatasetConfig, vocabSize: number, seqLength: number): Dataset {
  const opened = openDataset({ dataset, tokenizer: { type: 'byte' }, vocabSize, seqLength });
  onTestFinished(() => opened.close());
  return opened;
}
const jsonl = (path: string): DatasetConfig => ({ type: 'jsonl', path, shuffle: false, seed: 1, ...TOGETHER });
const text = (path: string): DatasetConfig => ({ type: 'text', path, shuffle: false, seed: 1, ...TOGETHER });
const all = (dataset: Dataset): number[][] =>
  Array.from({ length: dataset.length }, (_, i) => [...dataset.sample(i).inputIds]);

describe('jsonl of tokens', () => {
  it('reads every line of a fixture, with its mask', () => {
    const path = join(import.meta.dirname, '../../fixtures/qwen3-masked/tokens.jsonl');
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    const dataset = open(jsonl(path), 320, 40);
    expect(dataset.length).toBe(96);
    // Backwards too: a sample depends on its index only.
    for (const index of [...lines.keys(), ...[...lines.keys()].reverse()]) {
      const expected = JSON.parse(lines[index]!) as { input_ids: number[]; loss_mask: number[] };
      const { inputIds, lossMask } = dataset.sample(index);
      expect([...inputIds]).toEqual(expected.input_ids);
      expect([...lossMask!]).toEqual(expected.loss_mask);
    }
  });

  it.each([
    ['no newline at the end', '{"input_ids":[1,2]}\n{"input_ids":[3,4]}'],
    ['blank lines and CRLF', '\n{"input_ids":[1,2]}\r\n \t\r\n\r\n{"input_ids":[3,4]}\n\n\n'],
    ['mixed with a mask of booleans', '{"input_ids":[1,2],"loss_mask":[true,false]}\n{"input_ids":[3,4],"id":"x"}\n'],
  ])('%s', (_, content) => {
    const dataset = open(jsonl(tempFile('a.jsonl', content)), 5, 1);
    expect(all(dataset)).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(dataset.sample(1).lossMask).toBeUndefined();
  });

  it.each(['\uFEFF{"input_ids":[1,2]}\n{"input_ids":[3,4]}', '\uFEFF\n{"input_ids":[1,2]}\r\n{"input_ids":[3,4]}\r\n'])(
    'a byte-order mark is no part of the first line: %j',
    (text) => {
      expect(all(open(jsonl(tempFile('a.jsonl', text)), 5, 1))).toEqual([
        [1, 2],
        [3, 4],
      ]);
    },
  );

  it('finds lines across read chunks', () => {
    const pad = 'x'.repeat((4 << 20) - 30);
    const path = tempFile(
      'a.jsonl',
      `{"p":"${pad}","input_ids":[1,2]}\n{"input_ids":[3,4]}\n{"p":"${pad}","input_ids":[4,0]}`,
    );
    expect(all(open(jsonl(path), 5, 1))).toEqual([
      [1, 2],
      [3, 4],
      [4, 0],
    ]);
  });
});

describe('bad jsonl names the place', () => {
  it.each([
    ['bad JSON', '{"input_ids":[1,2]}\n\n{"input_ids":[1,', 1, 'MB_DATA_JSON', /a\.jsonl:3: bad JSON/],
    ['not an object', '{"input_ids":[1,2]}\n[1,2]\n', 1, 'MB_DATA_JSON', /a\.jsonl:2: not a JSON object/],
    ['too short', '{"input_ids":[1]}\n', 0, 'MB_DATA_SAMPLE_LENGTH', /a\.jsonl:1: .*has 1 tokens, expected 2/],
    ['too long', '{"input_ids":[1,2,3]}\n', 0, 'MB_DATA_SAMPLE_LENGTH', /has 3 tokens, expected 2/],
    ['token = vocabulary', '{"input_ids":[1,5]}\n', 0, 'MB_DATA_TOKEN', /a\.jsonl:1: token 5 at position 1 .*of 5/],
    ['negative token', '{"input_ids":[-1,2]}\n', 0, 'MB_DATA_TOKEN', /token -1 at position 0/],
    ['fractional token', '{"input_ids":[1,1.5]}\n', 0, 'MB_DATA_TOKEN', /token 1\.5/],
    ['token past 2^32', '{"input_ids":[1,4294967297]}\n', 0, 'MB_DATA_TOKEN', /token 4294967297/],
    ['token of another type', '{"input_ids":[1,"2"]}\n', 0, 'MB_DATA_TOKEN', /token "2"/],
    ['no input_ids', '{"input_ids":[1,2]}\n{"text":"a"}\n', 1, 'MB_DATA_SAMPLE', /a\.jsonl:2: no "input_ids"/],
    ['input_ids not a list', '{"input_ids":3}\n', 0, 'MB_DATA_SAMPLE', /not a list/],
    ['short mask', '{"input_ids":[1,2],"loss_mask":[1]}\n', 0, 'MB_DATA_MASK', /has 1 entries, expected 2/],
    ['mask of 2', '{"input_ids":[1,2],"loss_mask":[1,2]}\n', 0, 'MB_DATA_MASK', /a\.jsonl:1: .*has 2 at position 1/],
    ['mask not a list', '{"input_ids":[1,2],"loss_mask":1}\n', 0, 'MB_DATA_MASK', /not a list/],
    ['neither key', '{"tokens":[1,2]}\n', 0, 'MB_DATA_SAMPLE', /neither .*keys: tokens/],
    ['empty file', '', 0, 'MB_DATA_EMPTY', /holds no samples/],
    ['only blanks', ' \n\r\n', 0, 'MB_DATA_EMPTY', /holds no samples/],
    ['text then tokens', '{"text":"abc"}\n{"input_ids":[1,2]}\n', 0, 'MB_DATA_SAMPLE', /a\.jsonl:2: no "text"/],
    ['too little text', '{"text":"a"}\n', 0, 'MB_DATA_EMPTY', /1 tokens, one sample needs 2/],
  ])('%s', async (_, content, index, code, message) => {
    const path = tempFile('a.jsonl', content);
    const vocabSize = content.includes('text') ? 256 : 5;
    const error = await mbridgeError(() => open(jsonl(path), vocabSize, 1).sample(index));
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ code, exitCode: 7 });
    expect(error.hint).toBeTruthy();
  });

  it.each([
    ['missing', '/nonexistent/a.jsonl', /no such file/],
    ['a folder', import.meta.dirname, /is a folder, not a file/],
  ])('%s file', async (_, path, message) => {
    for (const config of [jsonl(path), text(path)]) {
      const error = await mbridgeError(() => open(config, 256, 4));
      expect(error).toMatchObject({ code: 'MB_DATA_UNREADABLE', exitCode: 7 });
      expect(error.message).toMatch(message);
    }
  });
});

describe('text', () => {
  it('cuts a file into blocks that share one token', () => {
    const dataset = open(text(tempFile('a.txt', 'abcdefgh')), 256, 3);
    const blocks = all(dataset).map((ids) => String.fromCharCode(...ids));
    expect(blocks).toEqual(['abcd', 'defg']);
  });

  it('puts the texts of jsonl lines end to end, a token of its own between two', () => {
    const lines = ['ab', '', 'cédef', 'g', 'hijklmn'];
    const path = tempFile('a.jsonl', lines.map((line) => JSON.stringify({ text: line })).join('\n'));
    const dataset = open(jsonl(path), 256, 3);
    const texts = lines.filter((line) => line !== '').map((line) => [...Buffer.from(line)]);
    const bytes = texts.flatMap((text, i) => (i === 0 ? text : [255, ...text]));
    const expected = Array.from({ length: 6 }, (_, i) => bytes.slice(i * 3, i * 3 + 4));
    expect(all(dataset)).toEqual(expected);
    for (const index of [4, 0, 3, 1]) expect([...dataset.sample(index).inputIds]).toEqual(expected[index]);
  });

  it('the novel that comes with us is, byte for byte, that of every loss written down here', () => {
    const dataset = open(text('builtin:moby-dick'), 256, 256);
    expect(dataset.length).toBe(Math.floor((1204997 - 1) / 256));
    const bytes = readFileSync(resolveTextPath('builtin:moby-dick'));
    expect([...dataset.sample(0).inputIds]).toEqual([...bytes.subarray(0, 257)]);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(
      'fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240',
    );
  });

  it.each([
    ['a file too short', text('SHORT'), 256, 'MB_DATA_EMPTY', 7],
    ['an unknown builtin', text('builtin:war-and-peace'), 256, 'MB_DATA_BUILTIN', 3],
    ['a vocabulary below 256', text('builtin:moby-dick'), 255, 'MB_TOKENIZER_VOCAB', 3],
  ])('refuses %s', async (_, config, vocabSize, code, exitCode) => {
    if (config.type === 'text' && config.path === 'SHORT') config.path = tempFile('a.txt', 'abc');
    expect(await mbridgeError(() => open(config, vocabSize, 3))).toMatchObject({ code, exitCode });
  });

  it('refuses a tokenizer that is not built', async () => {
    const tokenizer = { type: 'huggingface' as const, path: 'x' };
    const dataset = text('builtin:moby-dick');
    const error = await mbridgeError(() => openDataset({ dataset, tokenizer, vocabSize: 256, seqLength: 4 }));
    expect(error).toMatchObject({ code: 'MB_TOKENIZER_UNSUPPORTED', exitCode: 3 });
  });
});

describe('mock', () => {
  const mock = (seed: number): Dataset => open({ type: 'mock', seed }, 1000, 4096);

  it('is a function of seed and index', () => {
    const dataset = mock(1);
    const first = [...dataset.sample(7).inputIds];
    expect([...dataset.sample(8).inputIds]).not.toEqual(first);
    expect([...mock(2).sample(7).inputIds]).not.toEqual(first);
    expect([...mock(1).sample(7).inputIds]).toEqual(first);
    expect([...dataset.sample(7 + 2 ** 32).inputIds]).not.toEqual(first);
    expect(dataset.length).toBe(Infinity);
  });

  it('is uniform over the vocabulary', () => {
    const counts = new Float64Array(1000);
    const dataset = mock(3);
    for (let i = 0; i < 200; i++) for (const token of dataset.sample(i).inputIds) counts[token]!++;
    const mean = (200 * 4097) / 1000;
    const chi = counts.reduce((sum, count) => sum + (count - mean) ** 2 / mean, 0);
    // 999 degrees of freedom: mean 999, standard deviation 45.
    expect(Math.abs(chi - 999)).toBeLessThan(5 * 45);
  });
});
