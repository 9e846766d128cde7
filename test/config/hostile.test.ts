import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { findRecipe } from '../../recipes/index.js';
import { MbridgeError } from '../../src/base/errors.js';
import { checkConfig } from '../../src/config/check-config.js';
import { expandPath, PATH_KEYS } from '../../src/config/expand-path.js';
import { configJsonSchema, sectionKeys } from '../../src/config/json-schema.js';
import { resolve, resolveConfig, type ConfigSources } from '../../src/config/resolve.js';
import type { RunConfig } from '../../src/config/schema.js';

const folder = mkdtempSync(join(tmpdir(), 'mbridge-hostile-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const tiny = findRecipe('qwen3-tiny');
let files = 0;

function file(content: string | Uint8Array, name = 'run.yaml'): string {
  const path = join(folder, String(files++));
  mkdirSync(path);
  writeFileSync(join(path, name), content);
  return join(path, name);
}

/** `CODE message` of the error of exit code 3 that `run` gives, folders left out. */
function failure(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (!(error instanceof MbridgeError)) throw error;
    expect(error.exitCode).toBe(3);
    return `${error.code} ${error.message}`.replace(/\/\S*\/(?=run\.yaml|config\.json)/g, '');
  }
  throw new Error('no error');
}

const fromFile = (content: string | Uint8Array): string =>
  failure(() => resolve({ recipe: tiny, file: file(content) }));
const override = (...texts: string[]): ConfigSources => ({
  recipe: tiny,
  overrides: texts.map((text) => ({ text, place: 'argv[4]' })),
});

/** Nine lists of nine aliases each of the list before. */
const BOMB = [
  'a: &a [x, x]',
  ...[...'abcdefghi'].map((name, i) => {
    const next = 'bcdefghij'[i] as string;
    return `${next}: &${next} [${Array(9).fill(`*${name}`).join()}]`;
  }),
].join('\n');

describe('whatever a YAML text holds, the error names its place', () => {
  test.each<[string, RegExp]>([
    ['model: *x', /^MB_CONFIG_SYNTAX run\.yaml:1:8: \*x is an alias, and no &x is before it; put it in quotes/],
    ['dataset:\n  path: *.txt', /^MB_CONFIG_SYNTAX run\.yaml:2:9: \*\.txt is an alias/],
    ['train: {train_iters: [*a]}', /run\.yaml:1:23: \*a is an alias/],
    [':\n  a: 1', /run\.yaml:1:1: a key is nothing; expected its name/],
    ['"": {a: 1}', /run\.yaml:1:1: a key is nothing/],
    ['model:\n  : 3', /run\.yaml:2:3: a key is nothing/],
    ['model:\n  "": 3', /run\.yaml:2:3: a key is nothing/],
    ['? [a, b]\n: 1', /run\.yaml:1:3: a key is a list or section/],
    ['rng: &r {seed: 1}\n*r : 2', /run\.yaml:2:1: a key is an alias/],
    ['model: &m\n  hidden_size: *m', /run\.yaml:2:16: \*m is an alias of a section that it is in/],
    ['model: &m {a: [{b: *m}]}', /run\.yaml:1:20: \*m is an alias of a section that it is in/],
    [`${BOMB}\nmodel: *j`, /^MB_CONFIG_SYNTAX run\.yaml:1:1: cannot be read as YAML: Excessive alias count/],
    [`model: ${'['.repeat(50_000)}`, /^MB_CONFIG_SYNTAX run\.yaml:1:\d+: sections or lists lie too deep/],
    [`model: ${'{a: '.repeat(20_000)}`, /run\.yaml:1:\d+: sections or lists lie too deep/],
    [Array.from({ length: 400 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), /run\.yaml:\d+:\d+: .* lie too deep/],
    ['model: !important x', /run\.yaml:1:8: Unresolved tag: !important; put it in quotes/],
    ['model:\n\thidden_size: 3', /^MB_CONFIG_SYNTAX run\.yaml:2:1: Tabs are not allowed/],
    ['rng: {seed: 1}\n...\n---\nrng: {seed: 2}', /a second document; a configuration is one/],
    ['rng: {seed: 1, seed: 2}', /run\.yaml:1:16: Map keys must be unique/],
    ['model: {toString: 1}', /^MB_CONFIG_UNKNOWN_KEY run\.yaml:1:9 model\.toString: unknown key/],
    ['model: {hidden_size: {toString: 1, valueOf: 2}}', /model\.hidden_size: expected an integer .*got \{"toString":1/],
    ['train: {train_iters: {constructor: {}}}', /train\.train_iters: expected an integer/],
    ['optimizer: {lr: {__proto__: {a: 1}}}', /optimizer\.lr: expected a number/],
    ['valueOf: {a: 1}', /^MB_CONFIG_UNKNOWN_KEY run\.yaml:1:1 valueOf: unknown key/],
    ['foor:', /^MB_CONFIG_UNKNOWN_KEY run\.yaml:1:1 foor: unknown key/],
    ['rng: {}\nfoor: ~', /^MB_CONFIG_UNKNOWN_KEY run\.yaml:2:1 foor: unknown key/],
    ['model: {foor: }', /^MB_CONFIG_UNKNOWN_KEY run\.yaml:1:9 model\.foor: unknown key/],
    ['mixed_precision:', /^MB_CONFIG_VALUE run\.yaml:1:1 mixed_precision: expected one of/],
    [`model: {hidden_size: "${'x'.repeat(5000)}"}`, /got "x{199}\.\.\.$/],
    ['%YAML 1.1\n---\nrng: {seed: 2024-01-01}', /rng\.seed: expected an integer .*got "2024-01-01T/],
    ['rng: {seed: !!binary aGk=}', /rng\.seed: expected an integer/],
    ['3', /run\.yaml:1:1: expected sections of keys/],
    ['[]', /run\.yaml:1:1: expected sections of keys/],
    [Array.from({ length: 100 }, (_, i) => `key${i}: 1`).join('\n'), /100 problems[^]*\n {2}and 60 more$/],
  ])('%j', (text, message) => {
    expect(fromFile(text)).toMatch(message);
  });

  test.each<[string, ConfigSources['file'] | Uint8Array, RegExp]>([
    ['not UTF-8', Buffer.from('rng: {seed: 1} # caf\xe9', 'latin1'), /run\.yaml: .*is not UTF-8 at byte 20 \(0xe9\)/],
    ['UTF-16', Buffer.from('\uFEFFrng: {seed: 1}', 'utf16le'), /is UTF-16, not UTF-8/],
    ['huge', Buffer.alloc(200_000, '#'), /has 200000 bytes, at most 131072/],
  ])('a file that is %s', (_, content, message) => {
    expect(fromFile(content as Uint8Array)).toMatch(message);
  });

  test('a byte-order mark is no part of the first key', () => {
    expect(resolveConfig({ recipe: tiny, file: file('\uFEFFrng: {seed: 7}') }).rng.seed).toBe(7);
  });

  test.each<[string, (path: string) => void, RegExp]>([
    ['a folder', (path) => mkdirSync(path), /is a folder, not a file/],
    ['a pipe, without waiting for it', (path) => execFileSync('mkfifo', [path]), /is a pipe, not a file/],
    ['a device', (path) => symlinkSync('/dev/zero', path), /is a device, not a file/],
    ['a link to itself', (path) => symlinkSync(path, path), /ELOOP/],
  ])('%s', (_, make, message) => {
    const path = join(folder, `special-${files++}.yaml`);
    make(path);
    expect(failure(() => resolve({ recipe: tiny, file: path }))).toMatch(message);
  });
});

describe('config.json of a Hugging Face folder', () => {
  const withConfig = (content: string | Uint8Array): string =>
    failure(() => resolve(override(`model.hf_path=${join(file(content, 'config.json'), '..')}`)));
  test.each<[string, string | Uint8Array, RegExp]>([
    ['an architecture with its own toString', '{"architectures":[{"toString":1}]}', /config\.json/],
    [
      'sizes that are objects',
      '{"model_type":"qwen3","hidden_size":{"valueOf":1},"num_attention_heads":{}}',
      /model\.hidden_size: expected/,
    ],
    ['an act with its own toString', '{"model_type":"qwen3","hidden_act":{"toString":null}}', /config\.json/],
    ['truncated', '{"model_type":', /config\.json is not JSON/],
    [
      'deep',
      `{"model_type":"qwen3","hidden_size":${'['.repeat(9000)}${']'.repeat(9000)}}`,
      /model\.hidden_size: expected/,
    ],
    ['not UTF-8', Buffer.from('{"a":"\xe9"}', 'latin1'), /config\.json: is not UTF-8 at byte 6/],
    ['null', 'null', /config\.json is not a JSON object/],
  ])('%s', (_, content, message) => {
    expect(withConfig(content)).toMatch(message);
  });

  test('a pipe, and a link out of the folder', () => {
    const [pipe, link] = [join(folder, 'hf-pipe'), join(folder, 'hf-link')];
    for (const path of [pipe, link]) mkdirSync(path);
    execFileSync('mkfifo', [join(pipe, 'config.json')]);
    expect(failure(() => resolve(override(`model.hf_path=${pipe}`)))).toMatch(/config\.json: is a pipe/);
    symlinkSync(file('{"model_type":"qwen3"}', 'config.json'), join(link, 'config.json'));
    expect(failure(() => resolve(override(`model.hf_path=${link}`)))).toMatch(/config\.json is a link that leads out/);
  });

  test('the cache of the Hub: a snapshot of links to blobs', () => {
    const snapshot = join(folder, 'models--x', 'snapshots', 'abc');
    mkdirSync(snapshot, { recursive: true });
    mkdirSync(join(folder, 'models--x', 'blobs'));
    writeFileSync(
      join(folder, 'models--x', 'blobs', '123'),
      JSON.stringify({ model_type: 'qwen3', rms_norm_eps: 1e-5, tie_word_embeddings: true }),
    );
    symlinkSync('../../blobs/123', join(snapshot, 'config.json'));
    expect(resolveConfig(override(`model.hf_path=${snapshot}`)).model.rms_norm_eps).toBe(1e-5);
  });
});

describe('an override is text first', () => {
  test.each([
    '*.jsonl',
    '&a',
    '!x',
    '{a',
    '[1',
    'a #1.txt',
    '# x',
    'a: b',
    '"quoted"',
    "'x'",
    '%TAG',
    '@x',
    '`x`',
    '| x',
    '> x',
    '123',
    '1e3',
    'true',
    'null',
    '~backup/../x'.slice(1),
    'a=b',
    ' x ',
    '- x',
    '? x',
    '---',
    'ä ö',
    '*',
    '0x10',
    '.inf',
  ])('dataset.path=%s', (text) => {
    expect(resolveConfig(override(`dataset.path=${text}`)).dataset).toMatchObject({ path: text });
  });

  test.each<[string, string, unknown]>([
    ['checkpoint.save=2024', 'checkpoint.save', '2024'],
    ['checkpoint.save=null', 'checkpoint.save', null],
    ['checkpoint.save=', 'checkpoint.save', null],
    ['optimizer.lr=4e-4', 'optimizer.lr', 4e-4],
    ['rng.seed=0x10', 'rng.seed', 16],
    ['model.deterministic=False', 'model.deterministic', false],
    ['train.exit_interval=null', 'train.exit_interval', null],
    ['train.exit_interval=~', 'train.exit_interval', null],
    ['dataset={type: jsonl, path: "a #1"}', 'dataset.path', 'a #1'],
  ])('%s', (text, path, value) => {
    expect(resolveConfig(override(text))).toHaveProperty(path, value);
  });

  test.each<[string, RegExp]>([
    ['dist.device=*x', /argv\[4\] dist\.device: expected one of auto, cuda, cpu, got "\*x"/],
    ['train.train_iters=5 # five', /argv\[4\] train\.train_iters: expected an integer of at least 1, got "5 # five"/],
    ['train.train_iters=*2', /got "\*2"/],
    ['train.train_iters=[1]', /got "\[1\]"/],
    ['train.train_iters=!x', /got "!x"/],
    ['train.train_iters="5"', /got "\\"5\\""/],
    ['dataset={type: *x}', /^MB_CONFIG_SYNTAX argv\[4\] dataset: \*x is an alias/],
    ['dataset={type: [', /^MB_CONFIG_SYNTAX 2 problems\n {2}argv\[4\] dataset: /],
    [`dataset=${'['.repeat(50_000)}`, /^MB_CONFIG_SYNTAX argv\[4\] dataset: .*too deep/],
    ['dataset=text', /dataset: expected/],
    ['dataset.toString=1', /unknown key/],
    ['constructor.name=1', /constructor: unknown key/],
    ['__proto__.seed=1', /__proto__: unknown key/],
    ['dataset.path=a\0b', /dataset\.path: holds a NUL/],
  ])('%j is refused in words', (text, message) => {
    expect(failure(() => resolve(override(text)))).toMatch(message);
  });
});

describe('paths', () => {
  const env = { HOME: '/home/u', DATA: '/data', EMPTY: '' };
  test.each([
    ['~', '/home/u'],
    ['~/ck', '/home/u/ck'],
    ['$HOME/ck', '/home/u/ck'],
    ['${HOME}/ck', '/home/u/ck'],
    ['$DATA/${DATA}x', '/data//datax'],
    ['a~/b', 'a~/b'],
    ['./~x', './~x'],
    ['cost$', 'cost$'],
    ['a$1', 'a$1'],
    ['/plain/*.txt', '/plain/*.txt'],
  ])('%s is %s', (path, full) => {
    expect(expandPath(path, env)).toEqual({ path: full });
  });

  test.each([
    ['~bob/x', /begins with ~bob; write that folder in full/],
    ['$NONE/x', /names \$NONE, which is not set/],
    ['${EMPTY}/x', /names \$EMPTY, which is not set/],
    ['${DATA:-x}', /holds \$\{, a shell's/],
    ['$(pwd)/x', /holds \$\(, a shell's/],
    ['${oc.env:DATA}', /holds \$\{, a shell's/],
  ])('%s is refused', (path, message) => {
    expect(expandPath(path, env)).toEqual({ problem: expect.stringMatching(message) as string });
  });

  test('in files as in overrides, for every key that names a path', () => {
    const sources = { ...override('logger.log_dir=~/log'), file: file('checkpoint: {load: "${HOME}/a", save: ~/b}') };
    const { checkpoint, logger } = resolveConfig(sources);
    const home = process.env['HOME'] ?? '';
    expect([checkpoint.load, checkpoint.save, logger.log_dir]).toEqual([`${home}/a`, `${home}/b`, `${home}/log`]);
    expect(failure(() => resolve({ file: '~/none.yaml' }))).toContain(`cannot read the configuration: ENOENT`);
    expect(failure(() => resolve({ file: '~x/none.yaml' }))).toContain('begins with ~x');
    expect(fromFile('checkpoint:\n  save: ~x/ck')).toMatch(/run\.yaml:2:3 checkpoint\.save: ~x\/ck begins with ~x/);
    const free = Object.entries(configJsonSchema().properties ?? {}).flatMap(([section, schema]) =>
      Object.entries(sectionKeys(schema))
        .filter(([, { type, anyOf, enum: values, const: only }]) => {
          const texts = [type, ...(anyOf ?? []).map((part) => part.type)].includes('string');
          return texts && values === undefined && only === undefined;
        })
        .map(([key]) => `${section}.${key}`),
    );
    expect(free.sort()).toEqual([...PATH_KEYS, 'dataset.split', 'logger.prometheus_host'].sort());
  });
});

describe('a configuration that a program changed', () => {
  const changed = (change: (config: RunConfig) => void): RunConfig => {
    const config = resolveConfig({ recipe: tiny });
    change(config);
    return config;
  };
  const loose = (config: RunConfig): Record<string, Record<string, unknown>> => config as never;

  test('is what it was where it is right, and not touched', () => {
    const config = changed((c) => (c.optimizer.lr = 5e-4));
    const before = structuredClone(config);
    expect(checkConfig(config)).toEqual(before);
    expect(config).toEqual(before);
  });

  test.each<[string, (config: RunConfig) => void, RegExp]>([
    [
      'a rate below 0',
      (c) => (c.optimizer.lr = -1),
      /^MB_CONFIG_VALUE optimizer\.lr: expected a number above 0, got -1$/,
    ],
    ['NaN', (c) => (c.optimizer.lr = NaN), /optimizer\.lr: expected a number above 0, got NaN/],
    ['a missing section', (c) => delete loose(c)['model'], /model: missing/],
    ['an unknown key', (c) => (loose(c)['train']!['iters'] = 3), /train\.iters: unknown key/],
    ['rules between keys', (c) => (c.optimizer.min_lr = 1), /optimizer\.min_lr: 1 is above/],
    ['what is not built', (c) => (c.model.expert_model_parallel_size = 2), /not built/],
    [
      'a cycle',
      (c) => (loose(c)['model']!['hidden_size'] = c),
      /model\.hidden_size: expected an integer .*got an object/,
    ],
    ['a bigint', (c) => (loose(c)['train']!['train_iters'] = 3n), /got 3n/],
    ['a function', (c) => (loose(c)['train']!['train_iters'] = () => 3), /got function/],
    [
      'a module that there is not',
      (c) => (c.model.recompute_modules = ['core_attn' as never]),
      /recompute_modules: expected a list of at least one of norm, rope, swiglu, attention, mlp, got/,
    ],
    ['a list for a section', (c) => (c.train = [] as never), /train: expected a section of keys/],
  ])('%s', (_, change, message) => {
    expect(failure(() => checkConfig(changed(change)))).toMatch(message);
  });

  test.each([null, undefined, 3, 'qwen3-tiny', []])('%j is none', (value) => {
    expect(failure(() => checkConfig(value as never))).toMatch(/is no object of sections/);
  });
});
