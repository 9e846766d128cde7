import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Fixture } from '../helpers/fixture.js';
import { runWorkers } from '../helpers/run-workers.js';
import { layoutConfig, ranksOf, type Layout } from './run-fixture.js';

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

/**
 * Runs one forward and backward on a layout, and puts the whole model's gradients and logits together.
 * @param values of the configuration, by `section.key`
 */
export async function dumpOf(
  fixture: Fixture,
  layout: Layout,
  values: Record<string, unknown> = {},
): Promise<{ grads: Map<string, Float32Array>; logits: Float32Array }> {
  const config = layoutConfig(fixture, layout, {
    // Whole gradients on every replica.
    'ddp.data_parallel_sharding_strategy': 'no_shard',
    'optimizer.use_distributed_optimizer': false,
    ...values,
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
