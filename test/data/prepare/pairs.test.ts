import { appendFileSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { mbridge } from '../../cli/mbridge.js';
import { CHATML, corpus, pairOf, prepare, textsOf } from './corpus.js';

const BOS = CHATML.replace('chatml', 'bos');

test('the files are Megatron’s, byte for byte', async () => {
  const folder = corpus({ 'a.jsonl': '"ab"\n"c"' });
  await prepare(folder);
  expect(readFileSync(join(folder, 'out.bin'), 'hex')).toBe('61006200ff00' + '6300ff00');
  const u64 = (...values: number[]): string =>
    Buffer.from(BigInt64Array.from(values, (value) => BigInt(value)).buffer).toString('hex');
  const lengths = Buffer.from(Int32Array.from([3, 2]).buffer).toString('hex');
  const magic = Buffer.from('MMIDIDX\0\0').toString('hex');
  const index = magic + u64(1) + '08' + u64(2) + u64(3) + lengths + u64(0, 6) + u64(0, 1, 2);
  expect(readFileSync(join(folder, 'out.idx'), 'hex')).toBe(index);
});

describe('inspect', () => {
  test('documents, ids, lengths, and texts with the tokenizer', async () => {
    const folder = corpus({ 'a.jsonl': '"Call me"\n"Call me Ishmael. Some years ago"\n"x"' });
    await prepare(folder, '--tokenizer', CHATML);
    const { stdout, exitCode } = await mbridge(['data', 'inspect', `${folder}/out.idx`, '--tokenizer', CHATML]);
    expect(exitCode).toBe(0);
    for (const text of ['documents  3', 'uint16', 'lengths', 'documents', '"Call me<|endoftext|>"', 'made of']) {
      expect(stdout).toContain(text);
    }
    const json = await mbridge(['data', 'inspect', `${folder}/out`, '--tokenizer', CHATML, '--samples', '1', '--json']);
    const found = JSON.parse(json.stdout) as Record<string, unknown>;
    expect(found).toMatchObject({ documents: 3, lengths: { least: 2 }, sidecar: { documents: 3 } });
    expect(found['samples']).toHaveLength(1);
    const bins = found['histogram'] as { count: number }[];
    expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(3);
    const ids = pairOf(join(folder, 'out')).documents.flat();
    expect(found['range']).toEqual([Math.min(...ids), Math.max(...ids)]);
  });

  test('another tokenizer is refused', async () => {
    const folder = corpus({ 'a.txt': 'x' });
    await prepare(folder);
    const { exitCode, stderr } = await mbridge(['data', 'inspect', `${folder}/out`, '--tokenizer', CHATML]);
    expect([exitCode, stderr.includes('error MB_DATA_TOKENIZER')]).toEqual([3, true]);
  });
});

describe('verify', () => {
  const change = (name: string, position: number, byte: number) => (folder: string) => {
    const bytes = readFileSync(join(folder, name));
    bytes[position] = byte;
    writeFileSync(join(folder, name), bytes);
  };
  test.each<[string, (folder: string) => void, string | undefined]>([
    ['a pair as it was written', () => undefined, undefined],
    ['without its .json', (folder) => rmSync(join(folder, 'out.json')), undefined],
    ['a cut .bin', (folder) => truncateSync(join(folder, 'out.bin'), 15), 'the .bin file has 15'],
    ['a longer .bin', (folder) => appendFileSync(join(folder, 'out.bin'), 'x'), 'the .bin file has 17'],
    ['a cut .idx', (folder) => truncateSync(join(folder, 'out.idx'), 40), 'out.idx: has 40 bytes, its header asks for'],
    ['no index', (folder) => writeFileSync(join(folder, 'out.idx'), 'x'), 'out.idx: does not begin as'],
    ['a dtype that is not read', change('out.idx', 17, 7), 'the tokens are float32'],
    ['other lengths', change('out.idx', 34, 3), 'out.idx: '],
    ['an id outside the vocabulary', change('out.bin', 1, 1), 'is not in the vocabulary of 256'],
    ['a document without its end', change('out.bin', 6, 1), 'document 0 does not end with 255'],
    ['no .bin', (folder) => rmSync(join(folder, 'out.bin')), 'out.bin: no such file'],
    ['a broken .json', (folder) => writeFileSync(join(folder, 'out.json'), '{}'), 'out.json: does not describe a pair'],
  ])('%s', async (_, damage, found) => {
    const folder = corpus({ 'a.jsonl': '"one"\n"two"' });
    await prepare(folder);
    damage(folder);
    const { exitCode, stdout, stderr } = await mbridge(['data', 'verify', `${folder}/out`]);
    if (found === undefined) expect(stdout).toContain('8 tokens in 2 documents are right');
    else expect(stderr).toContain(found);
    expect(exitCode, stderr).toBe(found === undefined ? 0 : 7);
  });
});

describe('merge', () => {
  test('puts pairs end to end', async () => {
    const folder = corpus({ 'a.txt': 'one', 'b.jsonl': '"two"\n"three"' });
    for (const name of ['a.txt', 'b.jsonl']) {
      await prepare(folder, '--input', `${folder}/${name}`, '--output', `${folder}/${name[0]}`);
    }
    const merged = await mbridge(['data', 'merge', `${folder}/b`, `${folder}/a`, '--output', `${folder}/c`]);
    expect(merged.stdout).toContain('14 tokens in 3 documents');
    expect(textsOf(`${folder}/c`)).toEqual(['two', 'three', 'one']);
    expect((await mbridge(['data', 'verify', `${folder}/c`])).exitCode).toBe(0);
    expect(readdirSync(folder).filter((name) => name.includes('parts'))).toEqual([]);
  });

  test.each([
    ['another tokenizer', ['--tokenizer', BOS], 3, 'MB_DATA_TOKENIZER'],
    ['another end of documents', ['--tokenizer', CHATML, '--no-append-eod'], 3, 'MB_DATA_TOKENIZER'],
    ['a pair that is not there', undefined, 7, 'MB_DATA_INDEX'],
  ])('refuses %s, and leaves nothing', async (_, more, code, error) => {
    const folder = corpus({ 'a.txt': 'one' });
    const input = ['--input', `${folder}/a.txt`];
    await prepare(folder, ...input, '--tokenizer', CHATML);
    if (more !== undefined) await prepare(folder, ...input, ...more, '--output', `${folder}/other`);
    const before = readdirSync(folder);
    const { exitCode, stderr } = await mbridge([
      'data',
      'merge',
      `${folder}/out`,
      `${folder}/other`,
      '--output',
      `${folder}/c`,
    ]);
    expect(stderr).toContain(`error ${error}`);
    expect(exitCode).toBe(code);
    expect(readdirSync(folder)).toEqual(before);
  });
});

test('of conversations these are counted, not what says who speaks', async () => {
  const line = '{"prompt": "Who is it?", "completion": "Ahab"}\n';
  const folder = corpus({ 'a.jsonl': line.repeat(3) });
  const made = await prepare(folder, '--tokenizer', CHATML, '--chat', '--json');
  const result = JSON.parse(made.stdout.trim().split('\n').at(-1)!) as { documents: number; tokens: number };
  expect(result.documents).toBe(3);
  const json = await mbridge(['data', 'inspect', `${folder}/out`, '--json']);
  const found = JSON.parse(json.stdout) as {
    documents: number;
    tokens: number;
    range: number[];
    lengths: { least: number };
  };
  expect(found).toMatchObject({ documents: 3, tokens: result.tokens, lengths: { least: result.tokens / 3 } });
  expect(found.range[0]).toBeGreaterThan(1);
  expect((await mbridge(['data', 'inspect', `${folder}/out`])).stdout).toContain('conversations  3\n');
  expect((await mbridge(['data', 'verify', `${folder}/out`])).stdout).toContain(' tokens in 3 conversations are right');
  const merged = await mbridge([
    'data',
    'merge',
    `${folder}/out`,
    `${folder}/out`,
    '--output',
    `${folder}/two`,
    '--json',
  ]);
  expect(JSON.parse(merged.stdout)).toMatchObject({ documents: 6, tokens: 2 * result.tokens });
}, 60_000);

/** Tables that pyarrow wrote: test/oracles/arrow-tables.py. */
const ARROW = join(import.meta.dirname, '../../../fixtures/arrow');

describe('import-hf', () => {
  const table = (text: string): Uint8Array =>
    new Uint8Array(parquetWriteBuffer({ columnData: [{ name: 'text', data: [text], type: 'STRING' }] }));
  const run = async (folder: string, ...more: string[]) =>
    await mbridge(['data', 'import-hf', folder, '--tokenizer', 'byte', '--output', `${folder}/out`, ...more]);

  test.each([
    [
      'shards by their names',
      'data/train-00000-of-00002.parquet',
      'data/train-00001-of-00002.parquet',
      'data/test-00000-of-00001.parquet',
    ],
    ['folders', 'default/train/0000.parquet', 'default/train/0001.parquet', 'default/test/0000.parquet'],
  ])('the training split, or the one named: %s', async (_, a, b, c) => {
    const folder = corpus({ [a]: table('a'), [b]: table('b'), [c]: table('c'), 'README.md': 'no' });
    expect((await run(folder)).exitCode).toBe(0);
    expect(textsOf(`${folder}/out`)).toEqual(['a', 'b']);
    await run(folder, '--split', 'test', '--output', `${folder}/test-pair`);
    expect(textsOf(`${folder}/test-pair`)).toEqual(['c']);
    const { exitCode, stderr } = await run(folder, '--split', 'dev', '--output', `${folder}/dev`);
    expect([exitCode, stderr.includes('has no split dev')]).toEqual([7, true]);
  });

  test.each([
    [
      'of save_to_disk',
      'train/data-00000-of-00002.arrow',
      'train/data-00001-of-00002.arrow',
      'test/data-00000-of-00001.arrow',
    ],
    [
      'of the cache',
      'a/0.0.0/squad-train-00000-of-00002.arrow',
      'a/0.0.0/squad-train-00001-of-00002.arrow',
      'a/0.0.0/squad-test.arrow',
    ],
  ])('Arrow files %s', async (_, a, b, c) => {
    const [stream, file] = ['stream', 'file'].map((format) => readFileSync(join(ARROW, `${format}.arrow`)));
    const files = { [a]: stream!, [b]: file!, [c]: stream!, 'train/cache-1.arrow': stream!, 'dataset_dict.json': '{}' };
    const folder = corpus(files);
    const { exitCode, stderr } = await run(folder);
    expect(exitCode, stderr).toBe(0);
    // The third text is empty and the fourth is none.
    const texts = ['a', 'é\n', 'x'.repeat(40)];
    expect(textsOf(`${folder}/out`)).toEqual([...texts, ...texts]);
    expect(stderr).toMatch(/data-00000-of-00002\.arrow \(row 4\)|squad-train-00000-of-00002\.arrow \(row 4\)/);
    expect((await run(folder, '--field', 'large', '--split', 'test', '--output', `${folder}/large`)).exitCode).toBe(0);
    expect(textsOf(`${folder}/large`)).toEqual(['1', '2', '3', '4', '5']);
  });

  test('what a dataset was mapped to in the cache is no split of it', async () => {
    const file = readFileSync(join(ARROW, 'stream.arrow'));
    const { exitCode, stderr } = await run(corpus({ 'squad-test.arrow': file, 'cache-0a1b.arrow': file }));
    expect(exitCode, stderr).toBe(0);
  });

  const cut = (bytes: number): Uint8Array => readFileSync(join(ARROW, 'stream.arrow')).subarray(0, bytes);
  test.each<[string, Record<string, string | Uint8Array>, string, string]>([
    ['no tables', { 'a.txt': 'x' }, 'MB_DATA_INPUT', 'has no Parquet and no Arrow file'],
    [
      'an Arrow file that was cut off',
      { 'a-train.arrow': cut(900) },
      'MB_DATA_ARROW',
      'a-train.arrow: cannot be read: ',
    ],
    ['what is none', { 'a-train.arrow': 'text' }, 'MB_DATA_ARROW', 'a-train.arrow: cannot be read: '],
    [
      'a compressed one',
      { 'a.arrow': readFileSync(join(ARROW, 'lz4.arrow')) },
      'MB_DATA_ARROW',
      'write it without compression',
    ],
  ])('%s are said', async (_, files, code, found) => {
    const folder = corpus(files);
    const { exitCode, stderr } = await run(folder);
    expect(stderr).toContain(`error ${code}`);
    expect(stderr).toContain(found);
    expect(exitCode).toBe(7);
    expect(readdirSync(folder).filter((name) => /^out\.(bin|idx|json)$/.test(name))).toEqual([]);
  });

  test('an Arrow file without the column names those that it has', async () => {
    const { exitCode, stderr } = await run(corpus({ 'a-train.arrow': cut(1 << 20) }), '--field', 'txt');
    expect([exitCode, stderr.includes('has no column txt (did you mean text?); columns: text, large')]).toEqual([
      7,
      true,
    ]);
  });
});
