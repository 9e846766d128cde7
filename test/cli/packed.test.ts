import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { stepFlops } from '../../src/families/flops.js';
import { modelShape } from '../../src/families/model-shape.js';
import { resolveConfig } from '../../src/config/resolve.js';
import { LAYOUT_FLAGS, pretrain, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { writePair } from '../data/pairs.js';
import { farthest } from '../parity/run-fixture.js';
import { mbridge } from './mbridge.js';

const SEQ = 16;
const DOCUMENTS = { document_attention: true, mask_document_starts: true };

const LENGTHS = [3, 1, 40, 0, 7, 25, 1, 1, 30, 12];
const documents = Array.from({ length: 40 }, (_, d) =>
  Array.from({ length: LENGTHS[d % LENGTHS.length]! }, (_, i) => (d * 31 + i * 17) % 251),
);

const MODEL = {
  ...{ vocab_size: 256, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 2, seq_length: SEQ },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8 },
};

function configOf(dataset: Record<string, unknown>): Record<string, unknown> {
  return {
    model: MODEL,
    train: { train_iters: 6, global_batch_size: 8 },
    checkpoint: { save: null },
    dataset: { type: 'indexed', ...dataset },
  };
}

type Line = Record<string, number> & { type: string };
const linesOf = (stdout: string, type: string): Line[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
    .filter((line) => line.type === type);

test('runs on documents are the same on every layout, go on where they stopped, and are evaluated so', async () => {
  const folder = temporaryFolder();
  const [a, b] = [await writePair(join(folder, 'a'), documents), await writePair(join(folder, 'b'), documents)];
  const blend = [
    { path: a, weight: 0.7 },
    { path: b, weight: 0.3 },
  ];
  const sets = { alone: { type: 'indexed', path: a, ...DOCUMENTS }, across: { type: 'indexed', path: a } };
  const validation = { eval_interval: 6, eval_samples: 12, sets };
  const config = { ...configOf({ blend, ...DOCUMENTS }), validation };
  const run = async (...args: string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await pretrain({ folder, args, config });
    expect(exitCode, stderr).toBe(0);
    return stdout;
  };
  const whole = await run(...LAYOUT_FLAGS.dp1);
  const reference = stepsOf(whole);
  const lossesOf = (stdout: string): Record<string, number> =>
    Object.fromEntries(linesOf(stdout, 'evaluation').map(({ set, loss }) => [set, loss!]));
  const evaluated = lossesOf(whole);
  expect(evaluated['alone']).not.toBe(evaluated['across']);
  for (const args of [LAYOUT_FLAGS.cp2, ['--nproc', '2', '--tp-size', '2', 'model.recompute_granularity=full']]) {
    const stdout = await run(...args);
    expect(farthest(stepsOf(stdout), reference, 'loss'), args.join(' ')).toBeLessThan(1e-5);
    for (const [set, loss] of Object.entries(lossesOf(stdout))) {
      expect(Math.abs(loss / evaluated[set]! - 1), set).toBeLessThan(1e-5);
    }
  }
  const saved = join(folder, 'saved');
  await run(...LAYOUT_FLAGS.dp1, 'train.exit_interval=2', `checkpoint.save=${saved}`);
  expect(stepsOf(await run(...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`))).toEqual(reference.slice(2));
  const other = await pretrain({
    ...{ folder, args: [...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`] },
    config: configOf({ blend, document_attention: true }),
  });
  expect(other.exitCode).toBe(7);
  expect(other.stderr).toMatch(/mask_document_starts[^]*MB_CHECKPOINT_DATA/);
}, 120_000);

test.each([
  ['dp1', LAYOUT_FLAGS.dp1],
  ['tp2 dp2', LAYOUT_FLAGS['tp2 dp2']],
  ['cp2', LAYOUT_FLAGS.cp2],
] as const)(
  'the work that is reported is that of the documents, and mask leaves their starts out, on %s',
  async (_, args) => {
    const folder = temporaryFolder();
    const path = await writePair(join(folder, 'a'), documents);
    const dataset = { path, shuffle: false, ...DOCUMENTS };
    const config = { ...configOf(dataset), train: { train_iters: 3, global_batch_size: 8 } };
    const { exitCode, stdout, stderr } = await pretrain({ folder, args, config });
    expect(exitCode, stderr).toBe(0);
    const starts = new Set(documents.flatMap((_, d) => documents.slice(0, d).flat().length));
    const shape = modelShape(
      resolveConfig({ recipe: { name: 'x', config: { model: MODEL, train: { train_iters: 1 } } } }),
    );
    const ranks = Number(args[1]);
    linesOf(stdout, 'step').forEach((step, update) => {
      let [attended, counted] = [0, 0];
      for (let first = update * 8 * SEQ; first < (update + 1) * 8 * SEQ; first += SEQ) {
        for (let place = first, length = 0; place < first + SEQ; place++) {
          length = place === first || starts.has(place) ? 1 : length + 1;
          attended += 2 * length - 1;
          if (!starts.has(place + 1)) counted++;
        }
      }
      const flops = step['tflops_per_device']! * 1e12 * ranks * (step['step_time_ms']! / 1000);
      expect(Math.abs(flops / stepFlops(shape, SEQ, 8, { pairs: attended / 2 }) - 1)).toBeLessThan(1e-6);
      expect(step['tokens']).toBe(counted);
      expect(attended).toBeLessThan(8 * SEQ * SEQ);
    });
  },
);

test('eval honours the documents of its data', async () => {
  const folder = temporaryFolder();
  const path = await writePair(join(folder, 'a'), documents);
  const fixture = join(import.meta.dirname, '../../fixtures/qwen3-tied');
  const run = async (...more: string[]): Promise<Line> => {
    const where = ['--dataset-type', 'indexed', '--log-dir', join(folder, 'run'), '--json', '--device', 'cpu'];
    const outcome = await mbridge(['eval', fixture, '--data', path, ...where, 'model.seq_length=16', ...more]);
    expect(outcome.exitCode, outcome.stderr).toBe(0);
    return linesOf(outcome.stdout, 'result')[0]!;
  };
  const plain = await run('--nproc', '1');
  const alone = await run('--nproc', '1', 'dataset.document_attention=true');
  const masked = await run('--nproc', '1', 'dataset.document_attention=true', 'dataset.mask_document_starts=true');
  expect(alone['tokens']).toBe(plain['tokens']);
  expect(alone['loss']).not.toBe(plain['loss']);
  // An empty document has no start, and that of the first is not predicted.
  expect(masked['tokens']).toBe(plain['tokens']! - (documents.filter(({ length }) => length > 0).length - 1));
  const two = await run('--nproc', '2', '--cp-size', '2', 'dataset.document_attention=true');
  expect(Math.abs(two['loss']! / alone['loss']! - 1)).toBeLessThan(1e-5);
});

describe('what has no documents is one error, before anything starts:', () => {
  test.each([
    [
      'mock',
      ['dataset.type=mock', 'dataset.document_attention=true'],
      /dataset\.document_attention: is for dataset\.type indexed or jsonl or text, and it is mock/,
    ],
    [
      'chat',
      ['dataset.type=chat', 'dataset.path=x', 'dataset.mask_document_starts=true'],
      /dataset\.mask_document_starts: is for dataset\.type indexed or jsonl or text, and it is chat/,
    ],
    [
      'text',
      ['dataset.type=text', 'dataset.path=x', 'dataset.packing=true'],
      /dataset\.packing: is for dataset\.type chat, and it is text/,
    ],
    [
      'a number',
      ['dataset.type=text', 'dataset.path=x', 'dataset.document_attention=3'],
      /dataset\.document_attention: expected true or false, got 3/,
    ],
  ])('%s', async (_, args, found) => {
    const { exitCode, stderr } = await mbridge([
      'pretrain',
      'qwen3-tiny',
      'train.train_iters=1',
      '--nproc',
      '1',
      ...args,
    ]);
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(found);
    expect(stderr.match(/MB_CONFIG_/g)).toHaveLength(1);
  });
});
