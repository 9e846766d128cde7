import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCheck, whySkipped, type CheckPlace } from '../../src/bench/check/check.js';
import { PARTS, type PartName } from '../../src/bench/check/parts.js';
import type { TrainedStep } from '../../src/bench/check/train-run.js';
import { visibleGpus } from '../../src/engine/devices.js';

/** MBRIDGE_RANKS_PER_GPU lets layouts of more processes than there are GPUs run. */
const ranksPerGpu = Number(process.env['MBRIDGE_RANKS_PER_GPU'] ?? 1);
const place: CheckPlace = {
  device: 'cuda',
  ranks: visibleGpus() * ranksPerGpu,
  ranksPerGpu,
  fixtures: join(import.meta.dirname, '../..', 'fixtures'),
  // What bench/torch_bf16_oracle.py wrote.
  oracle: process.env['MBRIDGE_ORACLE'] ?? null,
  stop: new AbortController().signal,
};
const gpus = Array.from({ length: visibleGpus() }, (_, i) => i);
const made = new Map<string, Promise<TrainedStep[]>>();

describe.each(Object.keys(PARTS) as PartName[])('%s', (part) => {
  for (const check of PARTS[part](place)) {
    const reason = whySkipped(check, place);
    const name = reason === null ? check.name : `${check.name} (${reason})`;
    test.skipIf(reason !== null)(name, async () => {
      const { measures, verdict, reason: failure } = await runCheck(check, place, gpus, made);
      if (verdict === 'skipped') return;
      expect(failure).toBeNull();
      expect(measures.length).toBeGreaterThan(0);
      for (const { what, value, bound } of measures) expect(value, what).toBeLessThanOrEqual(bound);
    });
  }
});
