import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import type { DatasetConfig } from '../../src/config/schema.js';
import { checkText } from '../../src/data/byte-file.js';
import { DataFile } from '../../src/data/data-file.js';
import type { DataIterator } from '../../src/data/data-iterator.js';
import type { Dataset, Sample } from '../../src/data/dataset.js';
import { checkDataFile, openDataset } from '../../src/data/open-dataset.js';
import { setupDataIterators } from '../../src/data/setup-data-iterators.js';
import { Utf8Check } from '../../src/base/utf8.js';
import { mbridgeError, tempFile, TOGETHER } from './helpers.js';

const config = (type: 'text' | 'jsonl', path: string): DatasetConfig => ({
  type,
  path,
  shuffle: false,
  seed: 1,
  ...TOGETHER,
});

/** `CODE message` and hint of the error of exit code 7 that opening gives. */
async function refusal(type: 'text' | 'jsonl', path: string, seqLength = 2, vocabSize = 256): Promise<string> {
  const dataset = config(type, path);
  const error = await mbridgeError(() => {
    openDataset({ dataset, tokenizer: { type: 'byte' }, vocabSize, seqLength }).close();
  });
  expect(error.exitCode).toBe(7);
  return `${error.code} ${error.message} | ${error.hint}`;
}

function opens(type: 'text' | 'jsonl', path: string): void {
  openDataset({ dataset: config(type, path), tokenizer: { type: 'byte' }, vocabSize: 256, seqLength: 2 }).close();
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');
const LINES = '{"text":"abcdef"}\n{"text":"ghijkl"}\n';
const PLAIN = 'just some words in a row\n';

describe('a file that is no text is refused, saying what it is', () => {
  it.each<[string, string | Uint8Array, RegExp]>([
    ['a.txt', gzipSync(PLAIN), /is a gzip file \| unpack it first: gunzip/],
    ['a.jsonl.gz', gzipSync(LINES), /is a gzip file/],
    ['a.jsonl', gzipSync(LINES), /is a gzip file/],
    ['a.gz', PLAIN, /is a gzip file by its name \(\.gz\) \| .*or give the file another name/],
    ['a.txt.zst', latin1('\x28\xb5\x2f\xfd\0\0'), /is a Zstandard file/],
    ['a.XZ', latin1('\xfd7zXZ\0\0'), /is an xz file/],
    ['a', latin1('BZh91AY&SY\xff\xff'), /is a bzip2 file/],
    ['a.zip', latin1('PK\x03\x04\x14\0'), /is a zip archive/],
    ['a.docx', latin1('PK\x03\x04\x14\0'), /is an office document/],
    ['a.npz', latin1('PK\x03\x04\x14\0'), /is a NumPy file/],
    ['a', latin1(`${'x'.repeat(257)}ustar\0${'0'.repeat(300)}`), /is a tar archive/],
    ['a.parquet', latin1('PAR1\x15\x04\0'), /is a Parquet file \| write its texts as/],
    ['a.parquet', PLAIN, /is a Parquet file by its name/],
    ['a.arrow', latin1('ARROW1\0\0'), /is an Arrow file/],
    ['stream', latin1('\xff\xff\xff\xff\x10\0'), /is an Arrow file/],
    ['a.bin', latin1('\x01\0\x02\0'), /is a binary token file by its name/],
    ['a', latin1('\x01\0\x02\0'), /holds a NUL at byte 1/],
    ['a.bin', PLAIN, /is a binary token file by its name/],
    ['a.idx', latin1('MMIDIDX\0\0\x01'), /is the index of Megatron's token file/],
    ['a.idx', PLAIN, /is the index of Megatron's token file by its name/],
    ['a.png', latin1('\x89PNG\r\n\x1a\n'), /is an image/],
    ['a', latin1('\xff\xd8\xff\xe0'), /is an image/],
    ['a', latin1('\x7fELF\x02\x01'), /is a program/],
    ['a.pt', latin1('\x80\x02}q'), /is a pickle/],
    ['a', latin1('\x93NUMPY\x01\0'), /is a NumPy file/],
    ['a', latin1('SQLite format 3\0'), /is a database/],
    ['a', Buffer.from(`\uFEFF${PLAIN}`, 'utf16le'), /is UTF-16 \| convert it to UTF-8: iconv/],
    ['a', Buffer.from(PLAIN, 'utf16le'), /is UTF-16 without a mark/],
    ['a', latin1('\xff\xfe\0\0a\0\0\0'), /is UTF-32/],
    ['a.txt', `${PLAIN}a\0b`, /holds a NUL at byte 26/],
    ['a.safetensors', latin1('\x10\0\0\0\0\0\0\0{"a":1}'), /is weights of a model by its name/],
  ])('%s', async (name, content, message) => {
    const path = tempFile(name, content);
    for (const type of ['text', 'jsonl'] as const) expect(await refusal(type, path)).toMatch(message);
    expect((await mbridgeError(() => checkDataFile(config('text', path)))).message).toMatch(/is |holds /);
  });

  it.each<[string, string, RegExp]>([
    ['a.jsonl', LINES, /is a file of JSON lines by its name \| set dataset\.type=jsonl/],
    ['a.ndjson', PLAIN, /is a file of JSON lines by its name/],
    ['a.json', PLAIN, /is JSON by its name/],
    ['a.txt', LINES, /holds JSON lines \| set dataset\.type=jsonl/],
    ['a', '{"content": "x"}\n{"content": "y"}\n', /holds JSON lines/],
    ['a', `{"text": "${'x'.repeat(100_000)}"}\n`, /holds JSON lines/],
  ])('%s as text', async (name, content, message) => {
    expect(await refusal('text', tempFile(name, content))).toMatch(message);
  });

  it.each([
    'ORCS and others',
    'RIFF',
    'PAR1 is',
    'GIF89a',
    'BZh',
    '{ a brace\n{}',
    '{"a": 1}\nthen words',
    'MZ ',
    '[1]\n',
  ])('a text may begin with %j', (text) => {
    for (const name of ['a', 'a.md', 'corpus.pt', 'corpus.so']) opens('text', tempFile(name, text));
  });
});

describe('what is no file is not waited for', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-special-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const at = (name: string): string => join(folder, name);
  it.each<[string, () => unknown, RegExp]>([
    [
      'pipe.jsonl',
      () => execFileSync('mkfifo', [at('pipe.jsonl')]),
      /is a pipe, not a file \| dataset\.path must name a regular file/,
    ],
    ['zero', () => symlinkSync('/dev/zero', at('zero')), /is a device, not a file/],
    ['loop', () => symlinkSync('loop', at('loop')), /too many symbolic links/],
    [
      'socket',
      () => {
        const server = createServer();
        onTestFinished(() => void server.close());
        return new Promise<void>((resolve) => server.listen(at('socket'), () => resolve()));
      },
      /is a socket, not a file/,
    ],
  ])('%s', async (name, make, message) => {
    onTestFinished(() => rmSync(at(name), { force: true }));
    await make();
    for (const type of ['text', 'jsonl'] as const) expect(await refusal(type, at(name))).toMatch(message);
  });
});

describe('UTF-8', () => {
  it.each<[string, string, RegExp]>([
    ['jsonl', '{"text": "caf\xe9"}\n', /MB_DATA_ENCODING \S+a:1: not UTF-8 at byte 13 of the line \(0xe9, byte 13 of/],
    ['jsonl', '{"text": "abc"}\n\n{"text": "\xff"}\n', /a:3: not UTF-8 at byte 10 of the line \(0xff/],
    ['jsonl', '{"text": "abc", "other": "\xe9"}', /a:1: not UTF-8/],
    ['jsonl', '{"text": "abc"}\n\xc3', /a:2: not UTF-8 at byte 0 of the line/],
    ['text', 'caf\xe9 and more\n', /a:1: not UTF-8 at byte 3 of the line \(0xe9, byte 3/],
    ['text', 'one\ntwo\nthr\xed\xa0\x80', /a:3: not UTF-8 at byte 3/],
    ['text', 'overlong \xc0\xaf', /a:1: not UTF-8 at byte 9/],
    ['text', 'cut at the end \xe2\x82', /a:1: not UTF-8 at byte 15/],
    ['jsonl', '{"text": "abc"}\n{"text": "x\\ud83d"}\n', /a:2: "text" has half a character \(\\ud83d\) at position 1/],
  ])('%s %j', async (type, content, message) => {
    expect(await refusal(type as 'text', tempFile('a', latin1(content)))).toMatch(message);
  });

  it('may be cut between any two chunks', () => {
    const bytes = Buffer.from('aé€😀z'.repeat(3));
    for (let size = 1; size < 8; size++) {
      const check = new Utf8Check();
      for (let at = 0; at < bytes.length; at += size) expect(check.push(bytes.subarray(at, at + size))).toBe(-1);
      expect(check.end()).toBe(-1);
      // A byte that is wrong is found where it is.
      const broken = Buffer.concat([bytes.subarray(0, 12), Buffer.from([0xf0, 0x41]), bytes]);
      const found = new Utf8Check();
      const places: number[] = [];
      for (let at = 0; at < broken.length; at += size) places.push(found.push(broken.subarray(at, at + size)));
      expect(places.find((place) => place >= 0)).toBe(12);
    }
  });

  it('a large text is looked at in parts that may begin inside a character', () => {
    const path = tempFile('a', '€'.repeat(100_000));
    const file = new DataFile(path, 'text');
    onTestFinished(() => file.close());
    checkText(file, 10_000);
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from([0xff]), 0, 1, 299_998);
    closeSync(fd);
    expect(() => checkText(file, 10_000)).toThrow(/a:1: not UTF-8 at byte 299997 .*\(0xe2/);
  });

  it('a byte-order mark is no text', () => {
    const dataset = openDataset({
      dataset: config('text', tempFile('a.txt', '\uFEFFabcde')),
      tokenizer: { type: 'byte' },
      vocabSize: 256,
      seqLength: 4,
    });
    onTestFinished(() => dataset.close());
    expect([...dataset.sample(0).inputIds]).toEqual([...Buffer.from('abcde')]);
  });
});

describe('a bad line is found when the file is opened', () => {
  const ids = (...list: unknown[]): string => JSON.stringify({ input_ids: list });
  const good = ids(1, 2, 3);
  it.each<[string, string, RegExp]>([
    ['short', ids(1, 2), /MB_DATA_SAMPLE_LENGTH \S+:8: "input_ids" has 2 tokens, expected 3/],
    ['empty list', ids(), /:8: "input_ids" has 0 tokens/],
    ['beyond the vocabulary', ids(1, 2, 9), /MB_DATA_TOKEN \S+:8: token 9 at position 2/],
    ['negative', ids(1, -2, 3), /:8: token -2 at position 1/],
    ['fractional', ids(1.5, 2, 3), /:8: token 1\.5 at position 0/],
    ['a text for a token', ids('1', 2, 3), /:8: token "1"/],
    ['null', 'null', /:8: not a JSON object/],
    ['a list', '[1,2,3]', /:8: not a JSON object/],
    ['cut', '{"input_ids":[1,2', /:8: bad JSON/],
    ['words', 'hello', /:8: bad JSON/],
    ['NaN', '{"input_ids":[1,2,3],"score":NaN}', /:8: bad JSON.* \| NaN and Infinity are no JSON/],
    ['-Infinity', '{"input_ids":[1,2,3],"a":"NaN","score":-Infinity}', /NaN and Infinity are no JSON/],
    ["Python's repr", "{'input_ids': [1,2,3]}", /\| this is how Python prints a dict/],
    ['two objects', `${good}${good}`, /:8: bad JSON/],
    ['another key', '{"text":"abc"}', /:8: no "input_ids"/],
    ['a mask too short', '{"input_ids":[1,2,3],"loss_mask":[1]}', /MB_DATA_MASK \S+:8:/],
  ])('%s', async (_, bad, message) => {
    const lines = [...Array<string>(7).fill(good), bad, ...Array<string>(4).fill(good)];
    expect(await refusal('jsonl', tempFile('a.jsonl', lines.join('\n')), 2, 9)).toMatch(message);
  });

  it.each<[string, string, RegExp]>([
    ['a JSON array over lines', '[\n{"text": "aaa"},\n{"text": "bbb"}\n]\n', /:1: .*\| the file is a JSON array/],
    ['a JSON array on one line', '[{"text": "aaa"}]', /:1: not a JSON object \| the file is a JSON array/],
    ['an object over lines', '{\n  "text": "aaa"\n}\n', /:1: .*\| the file is an object over several lines/],
    ['a last line that is cut', '{"text": "aaa"}\n{"text": "bb', /:2: .*\| the file may have been cut off here/],
  ])('%s', async (_, content, message) => {
    expect(await refusal('jsonl', tempFile('a.jsonl', content))).toMatch(message);
  });
});

it('the end-of-document token stands between texts, and nowhere else', () => {
  const texts = ['', 'ab', '', 'c', 'défg', ''];
  const path = tempFile('a.jsonl', texts.map((text) => JSON.stringify({ text })).join('\n'));
  const dataset = openDataset({
    dataset: config('jsonl', path),
    tokenizer: { type: 'byte' },
    vocabSize: 256,
    seqLength: 9,
  });
  onTestFinished(() => dataset.close());
  const expected = [...Buffer.from('ab'), 255, ...Buffer.from('c'), 255, ...Buffer.from('défg')];
  expect(dataset.describe()).toContain('10 tokens');
  expect([...dataset.sample(0).inputIds]).toEqual(expected);
  const one = tempFile('one.jsonl', JSON.stringify({ text: 'abcdefghij' }));
  const alone = openDataset({
    dataset: config('jsonl', one),
    tokenizer: { type: 'byte' },
    vocabSize: 256,
    seqLength: 9,
  });
  onTestFinished(() => alone.close());
  expect([...alone.sample(0).inputIds]).toEqual([...Buffer.from('abcdefghij')]);
});

it('a large file of tokens is read in even steps', async () => {
  const lines = Array.from({ length: 1000 }, () => '{"input_ids":[1,2,3]}');
  lines[999] = '{"input_ids":[1,2]}';
  const { JsonlFile } = await import('../../src/data/jsonl-file.js');
  const { JsonlSamples } = await import('../../src/data/jsonl-samples.js');
  const path = tempFile('a.jsonl', lines.join('\n'));
  const samples = new JsonlSamples(JsonlFile.open(path), { vocabSize: 9, seqLength: 2 });
  onTestFinished(() => samples.close());
  expect(() => samples.check(500)).toThrow(/:1000: "input_ids" has 2 tokens/);
  lines[999] = lines[0]!;
  lines[501] = '{"input_ids":[1,2]}';
  writeFileSync(path, lines.join('\n'));
  const stepped = new JsonlSamples(JsonlFile.open(path), { vocabSize: 9, seqLength: 2 });
  onTestFinished(() => stepped.close());
  stepped.check(11_000);
  expect(() => stepped.check()).toThrow(/:502: /);
});

describe("a program's own samples", () => {
  const own = (sample: unknown, length = 4): Dataset => ({
    length,
    sample: () => sample as Sample,
    describe: () => 'mine',
    close: () => undefined,
  });
  const iterator = (dataset: Dataset, shuffleSeed?: number): Promise<DataIterator> =>
    setupDataIterators(
      { dataset: { type: 'mock', seed: 1 }, tokenizer: { type: 'byte' } },
      {
        dpGroup: { rank: 0, size: 1 },
        vocabSize: 9,
        seqLength: 2,
        globalBatchSize: 4,
        microBatchSize: 4,
        dataset,
        ...(shuffleSeed === undefined ? {} : { shuffleSeed }),
      },
    );
  const good = Int32Array.of(1, 2, 3);

  it('are read in order, or shuffled by a seed', async () => {
    const numbered: Dataset = { ...own(undefined), sample: (i) => ({ inputIds: Int32Array.of(i, i, i) }) };
    const firsts = async (seed?: number): Promise<number[]> => {
      const [batch] = (await iterator(numbered, seed)).next(1);
      return [0, 2, 4, 6].map((at) => batch!.tokens[at]!);
    };
    expect(await firsts()).toEqual([0, 1, 2, 3]);
    expect((await firsts(3)).sort()).toEqual([0, 1, 2, 3]);
    const seeds = await Promise.all([1, 2, 3, 4].map(firsts));
    expect(new Set(seeds.map(String)).size).toBeGreaterThan(1);
  });

  it.each<[string, unknown, string, RegExp]>([
    [
      'too short',
      { inputIds: Int32Array.of(1) },
      'MB_DATA_SAMPLE_LENGTH',
      /mine: sample 0: inputIds has 1 entries; expected 3/,
    ],
    ['a list', { inputIds: [1, 2, 3] }, 'MB_DATA_SAMPLE', /inputIds is no Int32Array/],
    ['beyond the vocabulary', { inputIds: Int32Array.of(1, 9, 2) }, 'MB_DATA_TOKEN', /token 9 at position 1 .* of 9/],
    ['negative', { inputIds: Int32Array.of(-1, 1, 2) }, 'MB_DATA_TOKEN', /token -1 at position 0/],
    ['a short mask', { inputIds: good, lossMask: Uint8Array.of(1) }, 'MB_DATA_SAMPLE_LENGTH', /lossMask has 1 entries/],
    ['short begins', { inputIds: good, begins: Uint8Array.of(1) }, 'MB_DATA_SAMPLE_LENGTH', /begins has 1 entries/],
  ])('%s', async (_, sample, code, message) => {
    const data = await iterator(own(sample));
    const error = await mbridgeError(() => data.next(1));
    expect(error).toMatchObject({ code, exitCode: 7 });
    expect(error.message).toMatch(message);
  });

  it.each([0, -1, 1.5, NaN])('a length of %j', async (length) => {
    expect(await mbridgeError(() => iterator(own({ inputIds: good }, length)))).toMatchObject({
      code: 'MB_DATA_EMPTY',
    });
  });
});
