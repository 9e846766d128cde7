/**
 * Tokens per second of qwen3-tiny on the CPU: one process through the real command line.
 *
 *   node dist/bench/cpu-train.js [--micro-batch 8] [--threads 2] [--steps 23]
 */
import { realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { jsonLines, onCores, quantile, type Measurement, type StepShape } from './steps.js';

const MBRIDGE = fileURLToPath(new URL('../../bin/mbridge.js', import.meta.url));

/** The command line of a run of ours. */
export function ourCommand(shape: StepShape): string[] {
  return [
    ...`pretrain qwen3-tiny --nproc 1 --device cpu --json model.seq_length=${shape.seqLength}`.split(' '),
    `train.global_batch_size=${shape.globalBatch}`,
    `train.micro_batch_size=${shape.microBatch}`,
    `train.train_iters=${shape.steps}`,
  ];
}

/** Trains once and returns what the step lines say. */
export async function measureOurs(shape: StepShape): Promise<Measurement> {
  const folder = await mkdtemp(join(tmpdir(), 'mbridge-cpu-train-'));
  try {
    const run = [process.execPath, MBRIDGE, ...ourCommand(shape), '--log-dir', join(folder, 'run')];
    const steps = (await jsonLines(onCores(shape.threads, run))).filter(({ type }) => type === 'step');
    return {
      times: steps.map((step) => Number(step['step_time_ms'])),
      firstLoss: Number(steps[0]?.['loss']),
      lastLoss: Number(steps.at(-1)?.['loss']),
      versions: `Node ${process.versions.node}`,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Median and middle 80 % of the tokens per second, the first `warmUp` updates left out. */
export function rates(times: readonly number[], shape: StepShape, warmUp: number): { median: number; range: string } {
  const tokens = shape.globalBatch * shape.seqLength;
  const perSecond = times.slice(warmUp).map((ms) => (tokens * 1000) / ms);
  const [low, median, high] = [0.1, 0.5, 0.9].map((part) => Math.round(quantile(perSecond, part)));
  return { median: median ?? NaN, range: `${low}-${high}` };
}

if (realpathSync(process.argv[1] ?? '') === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      'micro-batch': { type: 'string', default: '8' },
      threads: { type: 'string', default: '2' },
      steps: { type: 'string', default: '23' },
    },
  });
  const shape: StepShape = {
    microBatch: Number(values['micro-batch']),
    globalBatch: 8,
    seqLength: 256,
    threads: Number(values.threads),
    steps: Number(values.steps),
  };
  const { times } = await measureOurs(shape);
  const { median, range } = rates(times, shape, 3);
  console.log(`mbridge ${ourCommand(shape).join(' ')}`);
  console.log(`${shape.threads} threads: ${median} tokens/s (10-90 %: ${range}), ${times.length - 3} updates after 3`);
}
