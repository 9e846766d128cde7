import { appendFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DataFile } from '../../src/data/data-file.js';
import { tempFile } from '../data/helpers.js';
import { copyFolder, LAYOUT_FLAGS, pretrain, stepsOf, temporaryFolder } from './runs.js';

const SEQ = 8;
const made = { folder: '' };

/** Lines of tokenised samples that differ. */
function lines(count: number): string[] {
  return Array.from({ length: count }, (_, i) => JSON.stringify({ input_ids: new Array<number>(SEQ + 1).fill(i + 1) }));
}

function config(path: string, rest: Record<string, unknown> = {}): Record<string, unknown> {
  const model = { vocab_size: 256, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, seq_length: SEQ };
  const heads = { num_attention_heads: 2, num_key_value_heads: 2, head_dim: 16 };
  return {
    model: { ...model, ...heads },
    train: { train_iters: 6, global_batch_size: 1 },
    checkpoint: { save: null },
    dataset: { type: 'jsonl', path, shuffle: true, ...rest },
  };
}

beforeAll(async () => {
  made.folder = mkdtempSync(join(tmpdir(), 'mbridge-data-'));
  const data = join(made.folder, 'data.jsonl');
  writeFileSync(data, lines(12).join('\n'));
  const args = [...LAYOUT_FLAGS.dp1, 'train.exit_interval=3', `checkpoint.save=${join(made.folder, 'saved')}`];
  const outcome = await pretrain({ folder: made.folder, args, config: config(data) });
  if (outcome.exitCode !== 0) throw new Error(outcome.stderr);
}, 120_000);

afterAll(() => rmSync(made.folder, { recursive: true, force: true }));

describe('data that changed between save and resume', () => {
  test.each<[string, (data: string) => Record<string, unknown> | undefined, RegExp | null]>([
    ['nothing did', () => undefined, null],
    ['it lies elsewhere', (data) => (renameSync(data, `${data}.moved`), { path: `${data}.moved` }), null],
    ['a line less', (data) => void writeFileSync(data, lines(11).join('\n')), /data\.jsonl.* had \d+ bytes, has \d+/],
    ['a line more', (data) => void appendFileSync(data, `\n${lines(13)[12]}`), /data\.jsonl.* had \d+ bytes, has \d+/],
    [
      'another order of the lines',
      (data) => void writeFileSync(data, lines(12).reverse().join('\n')),
      /data\.jsonl.* had a content of SHA-256 [0-9a-f]{16}, has [0-9a-f]{16}/,
    ],
    ['another seed', () => ({ seed: 99 }), /dataset\.seed was \d+, is 99/],
    ['no shuffling', () => ({ shuffle: false }), /dataset\.shuffle was true, is false/],
    ['another kind', () => ({ type: 'mock', path: undefined, shuffle: undefined }), /dataset\.type was jsonl, is mock/],
  ])(
    '%s',
    async (_, change, found) => {
      const folder = temporaryFolder();
      const data = join(folder, 'data.jsonl');
      mkdirSync(join(folder, 'runs'));
      writeFileSync(data, lines(12).join('\n'));
      const saved = copyFolder(join(made.folder, 'saved'), join(folder, 'saved'));
      const run = {
        folder,
        config: config(data, change(data)),
        args: [...LAYOUT_FLAGS.dp1, `checkpoint.load=${saved}`],
      };
      const outcome = await pretrain(run);
      if (found === null) {
        expect(outcome.exitCode, outcome.stderr).toBe(0);
        expect(stepsOf(outcome.stdout).map(({ step }) => step)).toEqual([4, 5, 6]);
        return;
      }
      expect(outcome.exitCode, outcome.stderr).toBe(7);
      expect(stepsOf(outcome.stdout)).toEqual([]);
      expect(outcome.stderr).toContain('MB_CHECKPOINT_DATA');
      expect(outcome.stderr).toMatch(found);
      const allowed = await pretrain({ ...run, args: [...run.args, 'checkpoint.allow_changed_data=true'] });
      expect(allowed.exitCode, allowed.stderr).toBe(0);
      expect(allowed.stderr).toMatch(found);
      expect(stepsOf(allowed.stdout).map(({ step }) => step)).toEqual([4, 5, 6]);
    },
    120_000,
  );
});

test('of a large file, parts from its first to its last byte are hashed', () => {
  const bytes = Buffer.alloc((64 << 20) + 4097, 'a');
  const of = (): string => {
    const file = new DataFile(tempFile('large.txt', bytes), 'text');
    const { sha256 } = file.fingerprint('large');
    file.close();
    return sha256;
  };
  const before = of();
  expect(of()).toBe(before);
  for (const at of [0, 1000, bytes.length - 1]) {
    bytes[at]! ^= 1;
    expect(of(), `byte ${at}`).not.toBe(before);
    bytes[at]! ^= 1;
  }
});
