import { appendFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test, vi } from 'vitest';
import { LAYOUT_FLAGS, pretrain, pretrainArgs, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { writePair } from '../data/pairs.js';
import { CHATML } from '../data/prepare/corpus.js';
import { farthest } from '../parity/run-fixture.js';
import { BIN, mbridge, type Outcome } from './mbridge.js';

vi.setConfig({ testTimeout: 120_000 });

const TOKENIZER = { type: 'huggingface', path: CHATML };
const TEXT = readFileSync(join(import.meta.dirname, '../../data/moby-dick.txt'), 'utf8').slice(0, 30_000);
const LINES = TEXT.match(/[^]{1,700}/g)!.map((text) => `${JSON.stringify({ text })}\n`);
/** One of two processes that torchrun starts. */
const TORCHRUN = { RANK: '0', LOCAL_RANK: '0', WORLD_SIZE: '2', LOCAL_WORLD_SIZE: '2', MASTER_PORT: '29999' };

interface Data {
  readonly folder: string;
  readonly path: string;
  readonly config: Record<string, unknown>;
}

function dataOf(name: string, content: string, more: Record<string, unknown> = {}): Data {
  const folder = temporaryFolder();
  const path = join(folder, name);
  writeFileSync(path, content);
  const dataset = { type: name.endsWith('.jsonl') ? 'jsonl' : 'text', path };
  return { folder, path, config: { tokenizer: TOKENIZER, dataset, ...more } };
}

async function run({ folder, config }: Data, ...args: string[]): Promise<Outcome> {
  return await pretrain({ folder, config, args: [...LAYOUT_FLAGS.dp1, 'train.train_iters=6', ...args] });
}

const pairsOf = ({ path }: Data): string[] =>
  readdirSync(`${path}.mbridge`)
    .filter((name) => name.endsWith('.idx'))
    .map((name) => join(`${path}.mbridge`, name.replace('.idx', '')));

describe.each([
  ['text', 'a.txt', TEXT, ['--no-append-eod']],
  ['lines', 'a.jsonl', LINES.join(''), []],
] as const)('a run on %s with a tokenizer', (_, name, content, flags) => {
  test('reads what mbridge data prepare makes, the same on every layout and after a resume', async () => {
    const data = dataOf(name, content);
    const first = await run(data);
    expect(first.exitCode, first.stderr).toBe(0);
    expect(first.stderr).toMatch(/making tokens of it with .*tokenizer-chatml, once[^]* tokens in \d+ documents/);
    const reference = stepsOf(first.stdout);
    const prefix = join(data.folder, 'own');
    const prepare = ['data', 'prepare', '--input', data.path, '--tokenizer', CHATML, '--output', prefix, ...flags];
    expect((await mbridge(prepare)).exitCode).toBe(0);
    const [cached] = pairsOf(data);
    for (const ending of ['bin', 'idx', 'json'])
      expect(readFileSync(`${cached}.${ending}`)).toEqual(readFileSync(`${prefix}.${ending}`));
    const saved = join(data.folder, 'saved');
    const half = await run(data, 'train.exit_interval=3', `checkpoint.save=${saved}`);
    expect(half.stderr).not.toContain('making tokens');
    const rest = await run(data, `checkpoint.load=${saved}`);
    expect(stepsOf(rest.stdout), rest.stderr).toEqual(reference.slice(3));
    for (const layout of [LAYOUT_FLAGS['tp2 pp2'], LAYOUT_FLAGS.dp4]) {
      const other = await run(data, ...layout);
      expect(farthest(stepsOf(other.stdout), reference, 'loss'), other.stderr).toBeLessThan(1e-5);
    }
    expect(pairsOf(data)).toEqual([cached]);
  });
});

test('another content makes other files, and two runs at once make one', async () => {
  const data = dataOf('a.jsonl', LINES.join(''));
  const both = await Promise.all(['a', 'b'].map((name) => run(data, '--log-dir', join(data.folder, name))));
  expect(
    both.map(({ exitCode }) => exitCode),
    both.map(({ stderr }) => stderr).join('\n'),
  ).toEqual([0, 0]);
  expect(stepsOf(both[0]!.stdout)).toEqual(stepsOf(both[1]!.stdout));
  expect(readdirSync(`${data.path}.mbridge`)).toHaveLength(3);
  appendFileSync(data.path, LINES[0]!);
  expect((await run(data)).exitCode).toBe(0);
  expect(pairsOf(data)).toHaveLength(2);
});

test('a validation set is measured in bits a byte, as mbridge eval measures text and the token files of it', async () => {
  const data = dataOf('a.txt', TEXT);
  const { path, folder } = data;
  const validation = { eval_interval: 6, sets: { same: { type: 'text', path } } };
  const args = [`checkpoint.save=${join(folder, 'saved')}`, 'optimizer.lr=1e-3'];
  const trained = await run({ ...data, config: { ...data.config, validation } }, ...args);
  const { same } = (JSON.parse(trained.stdout.split('\n').at(-1)!) as { validation: { same: Record<string, number> } })
    .validation;
  expect(same!['bits_per_byte']).toBeGreaterThan(0);
  const [prefix] = pairsOf(data);
  for (const source of [path, prefix!]) {
    const log = ['--log-dir', join(folder, 'eval'), '--json', '--device', 'cpu'];
    const { stdout, stderr } = await mbridge(['eval', join(folder, 'saved'), '--data', source, ...log]);
    const found = JSON.parse(stdout.split('\n').at(-1) || '{}') as Record<string, number>;
    expect(found['bits_per_byte'], stderr).toBeCloseTo(same!['bits_per_byte']!, 5);
    // But for the first token, which is not predicted, all of the text counts.
    const bytes = (found['loss']! * found['tokens']!) / Math.LN2 / found['bits_per_byte']!;
    expect(Buffer.byteLength(TEXT) - bytes).toBeGreaterThan(0);
    expect(Buffer.byteLength(TEXT) - bytes).toBeLessThan(20);
  }
});

describe('what cannot be read is one error:', () => {
  test('processes of another starter, whose message has the command', async () => {
    const data = dataOf('a.txt', TEXT);
    const args = pretrainArgs({ folder: data.folder, config: data.config, args: [] });
    const refused = await mbridge(args, TORCHRUN);
    expect(refused).toMatchObject({ exitCode: 7 });
    const [, command, override] =
      /run once: (mbridge data prepare .*), then (dataset\.type=\S+ dataset\.path=\S+)/.exec(refused.stderr)!;
    const { stdout } = await execa('bash', ['-c', command!.replace('mbridge', `${process.execPath} ${BIN}`)]);
    expect(stdout).toContain('in 1 documents');
    const given = await run(data, ...override!.split(' '));
    expect(given.exitCode, given.stderr).toBe(0);
    const started = await run(data);
    expect(started.stderr).not.toContain('making tokens');
    expect(stepsOf(started.stdout)).toEqual(stepsOf(given.stdout));
  });

  test('a folder that cannot be made', async () => {
    const data = dataOf('a.txt', TEXT);
    writeFileSync(`${data.path}.mbridge`, 'a file');
    const { exitCode, stderr } = await run(data);
    expect(exitCode).toBe(7);
    expect(stderr).toMatch(/MB_DATA_WRITE[^]*or write the tokens elsewhere: mbridge data prepare [^]*path=a-tokens/);
  });

  test.each([
    ['a bad line', 'a.jsonl', '{"text": "one"}\n{"text": 2}\n', 7, /a\.jsonl:2: "text" is no text[^]*MB_DATA_LINE/],
    ['a line without text', 'a.jsonl', '{"body": "one"}\n', 7, /a\.jsonl:1: no "text"/],
    ['no line', 'a.jsonl', '\n', 7, /MB_DATA_EMPTY/],
    ['no text', 'a.txt', '', 7, /MB_DATA_EMPTY/],
  ] as const)('%s', async (_, name, content, code, found) => {
    const { exitCode, stderr } = await run(dataOf(name, content));
    expect(exitCode).toBe(code);
    expect(stderr.replace(/^(error \S+): ([^\n]*)/m, '$2 $1')).toMatch(found);
  });

  test('token files of another tokenizer', async () => {
    const data = dataOf('a.txt', TEXT);
    const prefix = join(data.folder, 'own');
    await mbridge(['data', 'prepare', '--input', data.path, '--tokenizer', 'byte', '--output', prefix]);
    const dataset = { type: 'indexed', path: prefix };
    const refused = await run({ ...data, config: { ...data.config, dataset } });
    expect(refused.exitCode).toBe(3);
    expect(refused.stderr).toMatch(/MB_DATA_TOKENIZER: .*own was made with another tokenizer \(byte\)[^]*chatml/);
    expect((await run({ ...data, config: { dataset } })).exitCode).toBe(0);
    // A run that names no tokenizer takes the tokens as they are.
    const other = join(data.folder, 'other');
    await mbridge(['data', 'prepare', '--input', data.path, '--tokenizer', CHATML, '--output', other]);
    const taken = await run({ ...data, config: { dataset: { type: 'indexed', path: other } } });
    expect(taken.exitCode, taken.stderr).toBe(0);
    const unknown = await writePair(join(data.folder, 'bare'), [Array.from({ length: 9000 }, (_, i) => i % 400)]);
    const bare = await run({ ...data, config: { ...data.config, dataset: { type: 'indexed', path: unknown } } });
    expect(bare.exitCode, bare.stderr).toBe(0);
  });
});
