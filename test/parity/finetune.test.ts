import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { TokenFile } from '../../src/data/indexed/token-file.js';
import { fixture, stepsOf, temporaryFolder } from '../checkpoint/runs.js';
import { mbridge } from '../cli/mbridge.js';
import { CHATML, prepare } from '../data/prepare/corpus.js';

vi.setConfig({ testTimeout: 120_000 });

const CHATS = join(import.meta.dirname, '../../fixtures/chats');

interface Trained {
  readonly losses: readonly number[];
}

/** What transformers and torch made of the conversations (test/oracles/finetune-chats.py). */
const expected = JSON.parse(readFileSync(join(CHATS, 'expected.json'), 'utf8')) as {
  readonly lr: number;
  readonly batch: number;
  readonly truncated_seq_length: number;
  readonly conversations: readonly { readonly ids: number[]; readonly mask: number[] }[];
  readonly whole: Trained;
  readonly truncated: Trained;
  readonly all: Trained;
};

test('the tokens of conversations, and which of them count, are those of transformers', async () => {
  const folder = temporaryFolder();
  const args = ['--input', join(CHATS, 'chats.jsonl'), '--tokenizer', CHATML, '--chat'];
  const { exitCode, stderr } = await prepare(folder, ...args);
  expect(exitCode, stderr).toBe(0);
  const file = new TokenFile(join(folder, 'out'), Infinity);
  const found = expected.conversations.map((_, i) => ({
    ids: [...file.document(2 * i)],
    mask: [...file.document(2 * i + 1)],
  }));
  expect(file.documents).toBe(2 * expected.conversations.length);
  file.close();
  expect(found).toEqual(expected.conversations);
});

const LAYOUTS = {
  dp1: ['--nproc', '1'],
  tp2: ['--nproc', '2', '--tp-size', '2'],
  pp2: ['--nproc', '2', '--pp-size', '2'],
  dp2: ['--nproc', '2'],
  cp2: ['--nproc', '2', '--cp-size', '2'],
} as const;

const KINDS = {
  dp1: ['whole', 'truncated', 'all'],
  tp2: ['whole', 'all'],
  pp2: ['truncated', 'all'],
  dp2: ['whole', 'all'],
  cp2: ['truncated', 'all'],
} as const;

const CASES = Object.entries(LAYOUTS).flatMap(([name, layout]) =>
  KINDS[name as keyof typeof LAYOUTS].map((kind) => ({ name, layout, kind })),
);

/** What each kind is trained with: packed, an update has the three samples that hold all conversations, twice. */
const SETTINGS = {
  whole: [`train.global_batch_size=${expected.batch}`],
  truncated: [`train.global_batch_size=${expected.batch}`, `model.seq_length=${expected.truncated_seq_length}`],
  all: ['train.global_batch_size=6', 'model.seq_length=256', 'dataset.packing=true'],
};

test.each(CASES)('the losses of $kind conversations are those of torch on $name', async ({ layout, kind }) => {
  const folder = temporaryFolder();
  const data = join(folder, 'chats.jsonl');
  copyFileSync(join(CHATS, 'chats.jsonl'), data);
  const { losses } = expected[kind];
  const { exitCode, stdout, stderr } = await mbridge([
    ...['finetune', fixture.folder, '--tokenizer', CHATML, '--data', data, '--json', '--device', 'cpu'],
    ...['--log-dir', join(folder, 'run'), ...layout, 'dataset.shuffle=false', `optimizer.lr=${expected.lr}`],
    ...['scheduler.lr_decay_style=constant', 'scheduler.lr_warmup_iters=0', `train.train_iters=${losses.length}`],
    ...SETTINGS[kind],
  ]);
  expect(exitCode, stderr).toBe(0);
  const found = stepsOf(stdout).map(({ loss }) => loss);
  expect(found).toHaveLength(losses.length);
  expect(Math.abs(found[0]! / losses[0]! - 1)).toBeLessThan(1e-5);
  found.forEach((loss, i) => {
    expect(Math.abs(loss / losses[i]! - 1), `update ${i + 1}`).toBeLessThan(2e-5);
  });
  expect(/warning: .*conversations have more than 65 tokens/.test(stderr)).toBe(kind === 'truncated');
});
