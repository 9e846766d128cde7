import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FAMILY_FIXTURES, FIXTURES, loadFixture, relativeError, type Fixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { label, layoutConfig, ranksOf, type Layout } from './run-fixture.js';

interface Dump {
  tp: number;
  cp: number;
  dp: number;
  gradients: {
    name: string;
    globalShape: number[];
    rows: { start: number; count: number };
    cols: { start: number; count: number };
    owner: boolean;
    file: string;
  }[];
  logits: { microBatch: number; file: string }[];
}

const LAYOUTS: Layout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 2, pp: 2, dp: 2 },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
  { tp: 1, cp: 4, pp: 1, dp: 1 },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 2, set: ['model.recompute_granularity="selective"'] },
  { tp: 1, cp: 4, pp: 1, dp: 1, set: ['model.cp_comm_type="p2p"'] },
];

/** In CI, of all fixtures but the first: what differs for them. The whole of it in `npm run test:full`. */
const FEWER = [LAYOUTS[1]!, LAYOUTS[4]!, LAYOUTS[5]!];
const full = process.env['MBRIDGE_TEST_FULL'] === '1';

/** Runs one forward and backward on a layout, and puts the whole model's gradients and logits together. */
async function dumpOf(
  fixture: Fixture,
  layout: Layout,
): Promise<{ grads: Map<string, Float32Array>; logits: Float32Array }> {
  const config = layoutConfig(fixture, layout, {
    // Whole gradients on every replica.
    'ddp.data_parallel_sharding_strategy': 'no_shard',
    'optimizer.use_distributed_optimizer': false,
  });
  const { exitCode, log, runDir } = await runWorkers('gradients', config, ranksOf(layout));
  expect(exitCode, log).toBe(0);
  return assemble(fixture, layout, runDir);
}

function assemble(
  fixture: Fixture,
  layout: Layout,
  run: string,
): { grads: Map<string, Float32Array>; logits: Float32Array } {
  const { tp, cp = 1, dp } = layout;
  const { batch, seq } = fixture.trajectory;
  const { vocabSize } = fixture.shape;
  const grads = new Map<string, Float32Array>();
  const logits = new Float32Array(batch * seq * vocabSize);
  const floats = (file: string): Float32Array => new Float32Array(new Uint8Array(readFileSync(join(run, file))).buffer);
  for (let rank = 0; rank < ranksOf(layout); rank++) {
    const dump = JSON.parse(readFileSync(join(run, `rank-${rank}/dump.json`), 'utf8')) as Dump;
    for (const { name, globalShape, rows, cols, owner, file } of dump.gradients) {
      if (!owner) continue;
      const width = globalShape.at(-1)!;
      const size = globalShape.reduce((a, b) => a * b, 1);
      const whole = grads.get(name) ?? grads.set(name, new Float32Array(size)).get(name)!;
      const values = floats(file);
      for (let r = 0; r < rows.count; r++) {
        whole.set(values.subarray(r * cols.count, (r + 1) * cols.count), (rows.start + r) * width + cols.start);
      }
    }
    for (const { microBatch, file } of dump.logits) {
      const values = floats(file);
      // A vocabulary that tp does not divide is cut as equally as can be.
      const [start, end] = [dump.tp, dump.tp + 1].map((rank) => Math.floor((vocabSize * rank) / tp)) as [
        number,
        number,
      ];
      const shard = end - start;
      // Of 2 cp chunks of a sequence, rank r holds the r-th from either end.
      const chunk = seq / (cp === 1 ? 1 : 2 * cp);
      const chunks = cp === 1 ? [0] : [dump.cp, 2 * cp - 1 - dump.cp];
      expect(values.length).toBe(chunks.length * chunk * shard);
      const first = dump.dp * (batch / dp) * seq + microBatch * seq;
      for (let t = 0; t < chunks.length * chunk; t++) {
        const token = first + chunks[Math.floor(t / chunk)]! * chunk + (t % chunk);
        logits.set(values.subarray(t * shard, (t + 1) * shard), token * vocabSize + start);
      }
    }
  }
  return { grads, logits };
}

interface Sample {
  input_ids: number[];
  loss_mask?: number[];
  document_starts?: number[];
}

function countedTokens(fixture: Fixture): number {
  const lines = readFileSync(fixture.tokens, 'utf8').trim().split('\n').slice(0, fixture.trajectory.batch);
  const samples = lines.map((line) => JSON.parse(line) as Sample);
  return samples.reduce((sum, { input_ids: ids, loss_mask: mask, document_starts: starts = [0] }) => {
    return sum + (mask?.slice(1).reduce((a, b) => a + b, 0) ?? ids.length - starts.length);
  }, 0);
}

describe.each([...FIXTURES, ...FAMILY_FIXTURES])('%s', (name) => {
  const fixture = loadFixture(name);
  const layouts = (full || name === 'qwen3-tied' ? LAYOUTS : FEWER).filter(
    ({ tp }) => fixture.shape.numKvHeads % tp === 0,
  );
  test.each(layouts.map((layout) => ({ name: label(layout), layout })))(
    'logits and every gradient are those of torch on $name',
    async ({ layout }) => {
      const expected = await fixture.expected();
      const { grads, logits } = await dumpOf(fixture, layout);
      const tokens = countedTokens(fixture);
      expect(relativeError(logits, expected.logits)).toBeLessThan(1e-5);
      expect([...grads.keys()].sort()).toEqual([...expected.grads.keys()].sort());
      for (const [parameter, reference] of expected.grads) {
        const mean = grads.get(parameter)!.map((value) => value / tokens);
        expect(relativeError(mean, reference), parameter).toBeLessThan(1e-5);
      }
    },
  );
});
