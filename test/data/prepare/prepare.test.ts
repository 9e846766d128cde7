import { readFileSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { HuggingFaceTokenizer } from '../../../src/data/tokenizer/huggingface-tokenizer.js';
import { mbridge } from '../../cli/mbridge.js';
import { CHATML, corpus, pairOf, prepare, textsOf, zstdStored } from './corpus.js';

const LINES = '{"text": "one"}\n\n{"text": "zwei é"}\r\n{"text": ""}\n{"text": "three"}';
const TEXTS = ['one', 'zwei é', 'three'];

function parquet(column: string, data: (string | null)[]): Uint8Array {
  return new Uint8Array(parquetWriteBuffer({ columnData: [{ name: column, data, type: 'STRING' }], rowGroupSize: 2 }));
}

describe('documents are found in', () => {
  test.each<[string, string, string | Uint8Array, string[]]>([
    ['a text', 'a.txt', 'Hi\r\nthere\n', ['Hi\r\nthere\n']],
    ['a text with a byte-order mark', 'a.txt', '\uFEFFHi', ['Hi']],
    ['Markdown', 'a.md', '# A', ['# A']],
    ['a packed text', 'a.txt.gz', gzipSync('Hi'), ['Hi']],
    ['two packed parts', 'a.txt.gz', Buffer.concat([gzipSync('Hi '), gzipSync('there')]), ['Hi there']],
    ['a text packed with Zstandard', 'a.txt.zst', zstdStored('x'.repeat(250_000)), ['x'.repeat(250_000)]],
    ['lines', 'a.jsonl', LINES, TEXTS],
    ['packed lines under a name that does not say it', 'a.jsonl', gzipSync(LINES), TEXTS],
    ['lines with a byte-order mark', 'a.ndjson', `\uFEFF${LINES}`, TEXTS],
    ['lines that are texts', 'a.jsonl', '"a"\n"b"', ['a', 'b']],
    ['lines packed with Zstandard', 'a.jsonl.zst', zstdStored(LINES), TEXTS],
    ['an array', 'a.json', '[{"text": "one"}, "two"]', ['one', 'two']],
    ['Parquet', 'a.parquet', parquet('text', ['a', 'b', '', 'd', 'é']), ['a', 'b', 'd', 'é']],
    [
      'a line of 3 MB',
      'a.jsonl',
      `{"text": "a"}\n{"text": "${'x'.repeat(3e6)}"}\n{"text": "b"}`,
      ['a', 'x'.repeat(3e6), 'b'],
    ],
  ])('%s', async (_, name, content, texts) => {
    const folder = corpus({ [name]: content });
    const { exitCode, stderr, stdout } = await prepare(folder);
    expect(exitCode, stderr).toBe(0);
    expect(textsOf(join(folder, 'out'))).toEqual(texts);
    expect(stdout).toContain(`in ${texts.length} documents, uint16`);
    expect(readdirSync(folder).sort()).toEqual([name, 'out.bin', 'out.idx', 'out.json'].sort());
  });

  test('the field that is named', async () => {
    const folder = corpus({ 'a.jsonl': '{"text": "no", "body": "yes"}', 'b.parquet': parquet('body', ['too']) });
    expect((await prepare(folder, '--field', 'body')).exitCode).toBe(0);
    expect(textsOf(join(folder, 'out'))).toEqual(['yes', 'too']);
  });

  test('all files below, sorted by path, once, with those of other kinds left out', async () => {
    const folder = corpus({ 'b/z.txt': '3', 'b/a.md': '2', 'a.txt': '1', 'b.txt': '4', 'b/x.png': 'no' });
    const { stderr } = await prepare(folder, '--input', folder, `${folder}/**/*.txt`, `${folder}/b.txt`);
    expect(stderr).toMatch(/left out: 1 files of other kinds, such as .*x\.png/);
    expect(textsOf(join(folder, 'out'))).toEqual(['1', '4', '2', '3']);
  });
});

test('the tokens are those of the tokenizer, with its end of document or without', async () => {
  const tokenizer = HuggingFaceTokenizer.open(CHATML);
  const folder = corpus({ 'a.jsonl': '{"text": "Call me Ishmael."}\n{"text": "e\\u0301"}' });
  const texts = ['Call me Ishmael.', 'e\u0301'];
  await prepare(folder, '--tokenizer', CHATML);
  const ids = texts.map((text) => [...tokenizer.encode(text)]);
  expect(pairOf(join(folder, 'out')).documents).toEqual(ids.map((each) => [...each, tokenizer.endOfDocument]));
  const sidecar = JSON.parse(readFileSync(join(folder, 'out.json'), 'utf8')) as Record<string, unknown>;
  const { identity, vocabSize } = tokenizer;
  expect(sidecar).toMatchObject({ tokenizer: { identity, vocab_size: vocabSize }, documents: 2, dtype: 'uint16' });

  const bare = corpus({ 'a.jsonl': readFileSync(join(folder, 'a.jsonl')) });
  await prepare(bare, '--tokenizer', CHATML, '--no-append-eod');
  expect(pairOf(join(bare, 'out')).documents).toEqual(ids);
  const named = corpus({ 'a.jsonl': readFileSync(join(folder, 'a.jsonl')) });
  await prepare(named, '--tokenizer', CHATML, '--eod', '<|im_end|>');
  expect(pairOf(join(named, 'out')).documents[1]!.at(-1)).toBe(tokenizer.tokenId('<|im_end|>'));
});

test('the bytes are the same with any number of threads', async () => {
  const line = (i: number): string => JSON.stringify({ text: `${i} `.repeat(i % 97) });
  const lines = (n: number): string => Array.from({ length: n }, (_, i) => line(i)).join('\n');
  const folder = corpus({ 'c/a.jsonl': lines(20_000), 'c/b.jsonl': lines(300), 'c/c.txt': 'x' });
  const outputs: string[][] = [];
  for (const workers of ['1', '2', '3']) {
    const output = join(folder, `out${workers}`);
    const { exitCode, stderr } = await prepare(
      folder,
      '--input',
      `${folder}/c`,
      '--output',
      output,
      '--workers',
      workers,
    );
    expect(exitCode, stderr).toBe(0);
    outputs.push(pairOf(output).files);
  }
  expect(outputs[1]).toEqual(outputs[0]);
  expect(outputs[2]).toEqual(outputs[0]);
});

describe('lines that are no documents', () => {
  const BAD = [
    ['bad JSON', '{"text": '],
    ['no JSON object', '[1]'],
    ['no "text"', '{"body": "x"}'],
    ['"text" is no text', '{"text": 1}'],
    ['"text" has half a character', '{"text": "\\ud800"}'],
  ] as const;

  test.each(BAD)('%s: counted, shown with its place, left out; with --strict the end', async (found, line) => {
    const folder = corpus({ 'a.jsonl': `{"text": "a"}\n\n${line}\n{"text": "b"}` });
    const strict = await prepare(folder, '--strict');
    expect(strict.exitCode).toBe(7);
    expect(strict.stderr).toContain(`error MB_DATA_LINE: ${folder}/a.jsonl:3: ${found}`);
    expect(readdirSync(folder)).not.toContain('out.idx');
    const { exitCode, stdout, stderr } = await prepare(folder, '--json');
    expect(exitCode).toBe(0);
    expect(stderr).toContain(`warning: ${folder}/a.jsonl:3: left out: ${found}`);
    expect(JSON.parse(stdout)).toMatchObject({ ok: true, documents: 2, bad: 1, tokens: 4, vocab_size: 256, eod: 255 });
    expect(textsOf(join(folder, 'out'))).toEqual(['a', 'b']);
  });

  test('a line that is not UTF-8, rows without a text, and many', async () => {
    const bytes = Buffer.concat([Buffer.from('{"text": "a"}\n{"text": "'), Buffer.from([0xff]), Buffer.from('"}\n')]);
    const many = 'x\n'.repeat(100);
    const folder = corpus({ 'a.jsonl': bytes, 'b.parquet': parquet('text', ['p', null, 'q']), 'c.jsonl': many });
    const { stderr, stdout } = await prepare(folder);
    expect(stderr).toContain('a.jsonl:2: left out: not UTF-8 at byte 10 of the line (0xff)');
    expect(stderr).toContain('b.parquet (row 2): left out: no "text"');
    expect(stderr.match(/warning/g)).toHaveLength(21);
    expect(stdout).toContain('102 bad lines');
    expect(textsOf(join(folder, 'out'))).toEqual(['a', 'p', 'q']);
  });
});

describe('refused, with the file and what is wrong', () => {
  const utf16 = Buffer.from('\uFEFFtext', 'utf16le');
  const cut = parquet('text', ['a', 'b', 'c']).slice(0, -20);
  test.each<[string, Record<string, string | Uint8Array>, string[], string, string]>([
    ['nothing', {}, [], 'MB_DATA_INPUT', 'matches no file'],
    ['other kinds only', { 'a.png': 'x' }, [], 'MB_DATA_INPUT', 'none of a kind that is read'],
    ['an unknown kind that is named', { 'a.csv': 'x' }, ['a.csv'], 'MB_DATA_INPUT', 'a.csv: its name does not say'],
    ['a file that is not there', {}, ['a.txt'], 'MB_DATA_UNREADABLE', 'a.txt: no such file'],
    ['no documents', { 'a.txt': '' }, [], 'MB_DATA_EMPTY', 'no documents in 1 files'],
    ['UTF-16', { 'a.txt': utf16 }, [], 'MB_DATA_FORMAT', 'a.txt: is UTF-16'],
    ['UTF-16 in lines', { 'a.jsonl': utf16 }, [], 'MB_DATA_FORMAT', 'a.jsonl: is UTF-16'],
    ['Latin-1', { 'a.txt': Buffer.from('a\nb é', 'latin1') }, [], 'MB_DATA_ENCODING', 'a.txt:2: not UTF-8 at byte 2'],
    ['a picture', { 'a.txt': '\x89PNG\r\n\x1a\n\0' }, [], 'MB_DATA_FORMAT', 'a.txt: '],
    [
      'cut gzip',
      { 'a.txt.gz': gzipSync('x'.repeat(1e5)).subarray(0, 60) },
      [],
      'MB_DATA_COMPRESSED',
      'a.txt.gz: is no whole gzip',
    ],
    [
      'cut Zstandard',
      { 'a.jsonl.zst': zstdStored(LINES).subarray(0, 40) },
      [],
      'MB_DATA_COMPRESSED',
      'a.jsonl.zst: is no whole Zst',
    ],
    ['cut Parquet', { 'a.parquet': cut }, [], 'MB_DATA_PARQUET', 'a.parquet: cannot be read'],
    ['no Parquet', { 'a.parquet': 'text' }, [], 'MB_DATA_PARQUET', 'a.parquet: cannot be read'],
    [
      'no such column',
      { 'a.parquet': parquet('texts', ['a']) },
      [],
      'MB_DATA_PARQUET',
      'no column text (did you mean texts?)',
    ],
    ['broken JSON', { 'a.json': '[{' }, [], 'MB_DATA_JSON', 'a.json: is no JSON'],
    ['no array', { 'a.json': '{}' }, [], 'MB_DATA_JSON', 'a.json: is no JSON array'],
    ['no tokenizer', { 'a.txt': 'x' }, ['--tokenizer', '/nowhere'], 'MB_TOKENIZER_FILE', '/nowhere: no such folder'],
  ])('%s', async (_, files, more, code, found) => {
    const folder = corpus(files);
    const args = more[0]?.startsWith('--') === false ? ['--input', join(folder, more[0])] : more;
    const { exitCode, stderr } = await prepare(folder, ...args);
    expect(stderr).toContain(`error ${code}: `);
    expect(stderr).toContain(found);
    expect(exitCode).toBe(7);
    expect(readdirSync(folder).filter((name) => /^out\.(bin|idx|json)/.test(name))).toEqual([]);
  });

  test.each([
    [[], 'required option'],
    [['--input', 'x', '--tokenizer', 'byte', '--output', 'x/'], 'Expected a prefix'],
    [['--input', 'x', '--tokenizer', 'byte', '--output', 'x', '--workers', '0'], 'Expected an integer'],
  ])('a command line of %j', async (args, found) => {
    const { exitCode, stderr } = await mbridge(['data', 'prepare', ...args]);
    expect(stderr).toContain(found);
    expect(exitCode).toBe(2);
  });

  test('a pair that is there already', async () => {
    const folder = corpus({ 'a.txt': 'x' });
    await prepare(folder, '--input', `${folder}/a.txt`);
    const before = pairOf(join(folder, 'out')).files;
    const { exitCode, stderr } = await prepare(folder, '--input', `${folder}/a.txt`);
    expect([exitCode, stderr.includes('MB_DATA_EXISTS')]).toEqual([7, true]);
    expect(pairOf(join(folder, 'out')).files).toEqual(before);
  });
});

test('files that are done are not read again, unless they have changed', async () => {
  // The parts lie among the inputs, and are none.
  const folder = corpus({ 'c/a.txt': 'one', 'c/b.txt': 'two', 'c/z.txt': Buffer.from([0xff]) });
  const input = ['--input', folder];
  expect((await prepare(folder, ...input)).exitCode).toBe(7);
  writeFileSync(join(folder, 'c/z.txt'), 'three');
  writeFileSync(join(folder, 'c/b.txt'), 'TWO');
  utimesSync(join(folder, 'c/b.txt'), 1, 1);
  const { stdout } = await prepare(folder, ...input, '--json');
  expect(JSON.parse(stdout)).toMatchObject({ documents: 3, read_bytes: 8 });
  expect(textsOf(join(folder, 'out'))).toEqual(['one', 'TWO', 'three']);
});
