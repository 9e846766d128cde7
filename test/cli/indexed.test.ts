import { copyFileSync, readFileSync, rmSync, truncateSync, writeFileSync, appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { LAYOUT_FLAGS, pretrain, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { countingDocuments, oraclePair, writePair } from '../data/pairs.js';
import { farthest } from '../parity/run-fixture.js';

const SEQ = 8;

function config(dataset: Record<string, unknown>, vocabSize = 151936): Record<string, unknown> {
  const model = {
    vocab_size: vocabSize,
    hidden_size: 32,
    intermediate_size: 32,
    num_hidden_layers: 2,
    seq_length: SEQ,
  };
  const heads = { num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8 };
  return {
    model: { ...model, ...heads },
    train: { train_iters: 8, global_batch_size: 8 },
    checkpoint: { save: null },
    dataset: { type: 'indexed', ...dataset },
  };
}

/** Two small sources of other tokens: an epoch of the second ends within the run. */
async function blendIn(folder: string): Promise<Record<string, unknown>> {
  const tokens = (count: number, first: number): number[][] =>
    countingDocuments(count, first).map((document) => document.map((token) => (token * 37) % 251));
  const a = await writePair(join(folder, 'a'), tokens(40, 0));
  const b = await writePair(join(folder, 'b'), tokens(9, 5));
  return {
    blend: [
      { path: a, weight: 0.7 },
      { path: b, weight: 0.3 },
    ],
  };
}

test('the split that is held back is a validation set: all of its tokens, the last sample too', async () => {
  const folder = temporaryFolder();
  const documents = countingDocuments(30).map((document) => document.map((token) => token % 251));
  const path = await writePair(join(folder, 'a'), documents);
  const held = documents.slice(24).flat();
  expect((held.length - 1) % SEQ).not.toBe(0);
  const dataset = config({ path, split: '80,20' }, 256);
  const whole = { ...dataset, train: { train_iters: 2, global_batch_size: 4 }, validation: { eval_interval: 2 } };
  const evaluationsOf = async (args: readonly string[]): Promise<Record<string, number>[]> => {
    const { stdout, stderr, exitCode } = await pretrain({ folder, args, config: whole });
    expect(exitCode, stderr).toBe(0);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, number>);
    return events.filter(({ type }) => (type as unknown) === 'evaluation');
  };
  const alone = await evaluationsOf(LAYOUT_FLAGS.dp1);
  expect(alone).toMatchObject([{ set: 'validation', step: 2, tokens: held.length - 1 }]);
  // The same as of these documents in a pair of their own.
  const own = await writePair(join(folder, 'own'), documents.slice(24));
  const sets = { own: { type: 'indexed', path: own } };
  const { stdout } = await pretrain({
    ...{ folder, args: LAYOUT_FLAGS.dp1 },
    config: { ...whole, validation: { eval_interval: 2, sets } },
  });
  const losses = [...stdout.matchAll(/"type":"evaluation","set":"(\w+)".*?"loss":([\d.]+)/g)];
  expect(Object.fromEntries(losses.map(([, set, loss]) => [set, loss]))).toEqual({
    validation: String(alone[0]!['loss']),
    own: String(alone[0]!['loss']),
  });
});

describe('a run on a blend', () => {
  test('is the same on every layout, and goes on in the middle of an epoch on another', async () => {
    const folder = temporaryFolder();
    const apart = { document_attention: true, mask_document_starts: true };
    const given = config({ ...(await blendIn(folder)), ...apart }, 256);
    const run = (args: readonly string[]) => pretrain({ folder, args, config: given });
    const whole = await run(LAYOUT_FLAGS.dp1);
    expect(whole.exitCode, whole.stderr).toBe(0);
    const reference = stepsOf(whole.stdout);
    expect(reference).toHaveLength(8);
    expect(whole.stdout).toMatch(/"data_ms":[\d.]+/);
    const result = JSON.parse(whole.stdout.trim().split('\n').at(-1)!) as { sources: Record<string, number>[] };
    expect(result.sources).toMatchObject([
      { share: 0.7, samples: 45 },
      { share: 0.3, samples: 19 },
    ]);
    expect(result.sources[1]!['epochs']).toBeGreaterThan(1);
    for (const args of [
      ['--nproc', '2', '--tp-size', '2'],
      ['--nproc', '2', '--pp-size', '2'],
      ['--nproc', '2'],
      LAYOUT_FLAGS.dp4,
    ]) {
      const { exitCode, stdout, stderr } = await run(args);
      expect(exitCode, stderr).toBe(0);
      expect(farthest(stepsOf(stdout), reference, 'loss'), args.join(' ')).toBeLessThan(1e-5);
    }
    const saved = join(folder, 'saved');
    const first = await run([...LAYOUT_FLAGS.dp1, 'train.exit_interval=3', `checkpoint.save=${saved}`]);
    expect(first.exitCode, first.stderr).toBe(0);
    const same = await run([...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`]);
    expect(stepsOf(same.stdout)).toEqual(reference.slice(3));
    const other = await run(['--nproc', '2', `checkpoint.load=${saved}`]);
    expect(other.exitCode, other.stderr).toBe(0);
    expect(farthest(stepsOf(other.stdout), reference.slice(3), 'loss')).toBeLessThan(1e-5);
    // Another token in the second source.
    const bin = readFileSync(join(folder, 'b.bin'));
    bin.writeInt32LE(99, 8);
    writeFileSync(join(folder, 'b.bin'), bin);
    const changed = await run([...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`]);
    expect(changed.exitCode).toBe(7);
    expect(changed.stderr).toMatch(/error MB_CHECKPOINT_DATA: [^]*b\.bin had a content of SHA-256 /);
  }, 240_000);
});

describe('a pair that cannot be read', () => {
  const edit = (change: (idx: Buffer) => void) => (prefix: string) => {
    const idx = readFileSync(`${prefix}.idx`);
    change(idx);
    writeFileSync(`${prefix}.idx`, idx);
  };
  // 12 sequences: lengths from byte 34, places from 82, documents from 178.
  test.each<[string, (prefix: string) => unknown, string, RegExp]>([
    ['no .idx', (p) => rmSync(`${p}.idx`), 'MB_DATA_UNREADABLE', /p\.idx: no such file/],
    [
      'no .bin',
      (p) => rmSync(`${p}.bin`),
      'MB_DATA_UNREADABLE',
      /p\.bin: no such file[^]*other file of the pair is there/,
    ],
    [
      'neither',
      (p) => [rmSync(`${p}.bin`), rmSync(`${p}.idx`)],
      'MB_DATA_UNREADABLE',
      /p\.idx: no such file, nor .*p\.bin/,
    ],
    ['an empty .idx', (p) => truncateSync(`${p}.idx`), 'MB_DATA_EMPTY', /p\.idx: is empty/],
    ['another magic', edit((idx) => idx.write('X')), 'MB_DATA_INDEX', /p\.idx: does not begin as an index of tokens/],
    ['a cut header', (p) => truncateSync(`${p}.idx`, 20), 'MB_DATA_INDEX', /ends at byte 20, inside its header/],
    ['version 2', edit((idx) => idx.writeUInt8(2, 9)), 'MB_DATA_INDEX', /is of version 2, only 1 is read/],
    [
      'floats',
      (p) => copyFileSync(`${oraclePair('float32')}.idx`, `${p}.idx`),
      'MB_DATA_INDEX',
      /the tokens are float32/,
    ],
    ['an unknown type', edit((idx) => idx.writeUInt8(9, 17)), 'MB_DATA_INDEX', /an unknown type \(code 9\)/],
    ['a cut .idx', (p) => truncateSync(`${p}.idx`, 200), 'MB_DATA_INDEX', /has 200 bytes, its header asks for 282/],
    ['a longer .idx', (p) => appendFileSync(`${p}.idx`, 'x'.repeat(12)), 'MB_DATA_INDEX', /modes of sequences/],
    ['a negative length', edit((idx) => idx.writeInt32LE(-3, 46)), 'MB_DATA_INDEX', /sequence 3 has a length of -3/],
    [
      'places that go back',
      edit((idx) => idx.writeInt32LE(4, 98)),
      'MB_DATA_INDEX',
      /sequence 2 begins at byte 4 of the .bin file, the one before it ends at byte 20/,
    ],
    [
      'a place beyond the data',
      edit((idx) => idx.writeInt32LE(1, 102)),
      'MB_DATA_INDEX',
      /sequence 2 begins at byte 4294967316/,
    ],
    [
      'documents that go back',
      edit((idx) => idx.writeInt32LE(1, 202)),
      'MB_DATA_INDEX',
      /document 3 begins with sequence 1, expected 2 to 12/,
    ],
    [
      'a document beyond the sequences',
      edit((idx) => idx.writeInt32LE(13, 266)),
      'MB_DATA_INDEX',
      /document 11 begins with sequence 13/,
    ],
    [
      'documents that end early',
      edit((idx) => idx.writeInt32LE(11, 274)),
      'MB_DATA_INDEX',
      /documents end at sequence 11 of 12/,
    ],
    [
      'a short .bin',
      (p) => truncateSync(`${p}.bin`, 100),
      'MB_DATA_INDEX',
      /p\.idx: 368 bytes of tokens .* the .bin file has 100/,
    ],
    ['a longer .bin', (p) => appendFileSync(`${p}.bin`, 'xxxx'), 'MB_DATA_INDEX', /the .bin file has 372/],
    ['no documents', (p) => writePair(p, []), 'MB_DATA_EMPTY', /p\.idx: holds no document/],
    [
      'documents without a token',
      (p) => writePair(p, [[], []]),
      'MB_DATA_EMPTY',
      /p: 2 of 2 documents \(train\) hold 0 tokens/,
    ],
    [
      'a token beyond the vocabulary',
      (p) =>
        writePair(p, [
          [1, 2],
          [3, 151936],
        ]),
      'MB_DATA_TOKEN',
      /p\.bin: token 151936 at place 3 \(document 1\) is not in the vocabulary of 151936/,
    ],
    [
      'a negative token',
      (p) => writeFileSync(`${p}.bin`, readFileSync(`${p}.bin`).fill(255, 8, 12)),
      'MB_DATA_TOKEN',
      /token -1 at place 2 \(document 1\)/,
    ],
  ])(
    '%s',
    async (_, damage, code, message) => {
      const folder = temporaryFolder();
      const prefix = join(folder, 'p');
      for (const ending of ['.bin', '.idx']) copyFileSync(oraclePair('int32') + ending, prefix + ending);
      await damage(prefix);
      const { exitCode, stdout, stderr } = await pretrain({
        folder,
        args: ['--nproc', '1'],
        config: config({ path: prefix }),
      });
      expect(exitCode, stderr).toBe(7);
      expect(stepsOf(stdout)).toEqual([]);
      expect(stderr).toContain(code);
      expect(stderr).toMatch(message);
    },
    60_000,
  );

  test.each<[string, Record<string, unknown>, RegExp]>([
    [
      'an ending too many',
      { path: `${oraclePair('int32')}.idx` },
      /MB_DATA_UNREADABLE[^]*without \.idx and \.bin, not \.idx/,
    ],
    ['neither path nor blend', {}, /dataset\.path.*missing; name a pair/],
    ['both', { path: 'a', blend: [{ path: 'b', weight: 1 }] }, /dataset\.blend.*set beside dataset\.path a/],
    ["Megatron's flat list", { blend: [0.7, 'a'] }, /dataset\.blend.*expected a list of \{path, weight\}, or null/],
    ['a weight of 0', { blend: [{ path: 'b', weight: 0 }] }, /dataset\.blend.*expected a list of \{path, weight\}/],
    ['a split of words', { path: 'a', split: 'most,rest' }, /dataset\.split.*expected parts/],
    ['a split of four', { path: 'a', split: '1,1,1,1' }, /dataset\.split.*expected parts/],
    ['a split of nothing', { path: 'a', split: '0,0,0' }, /dataset\.split.*expected parts/],
    [
      'a variable that is not set',
      { blend: [{ path: '$NOT_SET_AT_ALL/b', weight: 1 }] },
      /\$NOT_SET_AT_ALL, which is not set/,
    ],
  ])(
    '%s',
    async (_, dataset, message) => {
      const { exitCode, stderr } = await pretrain({
        folder: temporaryFolder(),
        args: ['--nproc', '1'],
        config: config(dataset),
      });
      expect(exitCode, stderr).toBe('path' in dataset && String(dataset['path']).endsWith('.idx') ? 7 : 3);
      expect(stderr).toMatch(message);
    },
    60_000,
  );
});
