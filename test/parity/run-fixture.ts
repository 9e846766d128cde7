import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { resolveConfig } from '../../src/config/resolve.js';
import type { RunConfig } from '../../src/config/schema.js';
import { mbridge } from '../cli/mbridge.js';
import type { Fixture } from '../helpers/fixture.js';

export interface Layout {
  readonly tp: number;
  /** 1 by default. */
  readonly cp?: number;
  readonly pp: number;
  readonly dp: number;
  /** `section.key=value` */
  readonly set?: readonly string[];
}

export interface Step {
  readonly step: number;
  readonly loss: number;
  readonly grad_norm: number;
  readonly lr: number;
}

/** The configuration that a fixture's trajectory was made with. */
export function fixtureConfig({ folder, tokens, trajectory }: Fixture): Record<string, unknown> {
  const { optimizer: o, steps, batch, seq, packed = false } = trajectory;
  const documents = packed ? { document_attention: true, mask_document_starts: true } : {};
  return {
    model: { hf_path: folder, seq_length: seq },
    train: { train_iters: steps.length, global_batch_size: batch, micro_batch_size: 1 },
    optimizer: {
      lr: o.lr,
      min_lr: o.min_lr,
      weight_decay: o.weight_decay,
      adam_beta1: o.beta1,
      adam_beta2: o.beta2,
      adam_eps: o.eps,
      clip_grad: o.clip_grad_norm,
    },
    scheduler: { lr_decay_style: 'cosine', lr_warmup_iters: o.warmup_steps, lr_decay_iters: o.decay_steps },
    mixed_precision: 'fp32',
    checkpoint: { pretrained_checkpoint: folder },
    dataset: { type: 'jsonl', path: tokens, shuffle: false, ...documents },
  };
}

/** A fixture's configuration on a layout, with values that win over both; `layout.set` in JSON. */
export function layoutConfig(fixture: Fixture, layout: Layout, values: Record<string, unknown>): RunConfig {
  const { tp, cp = 1, pp, set = [] } = layout;
  const flags = Object.entries({
    'model.tensor_model_parallel_size': tp,
    'model.context_parallel_size': cp,
    'model.pipeline_model_parallel_size': pp,
    ...values,
    ...Object.fromEntries(set.map((text) => [text.split('=')[0]!, JSON.parse(text.split('=')[1]!) as unknown])),
  });
  return resolveConfig({
    recipe: { name: 'fixture', config: fixtureConfig(fixture) },
    flags: flags.map(([path, value]) => ({ path, value, place: path })),
  });
}

export function label({ tp, cp = 1, pp, dp, set = [] }: Layout): string {
  return `tp${tp} ${cp > 1 ? `cp${cp} ` : ''}pp${pp} dp${dp} ${set.join(' ')}`.trim();
}

/** Processes of a layout. */
export function ranksOf({ tp, cp = 1, pp, dp }: Layout): number {
  return tp * cp * pp * dp;
}

/** Trains through the command line and gives the step lines; fails with the output where the run fails. */
export async function trainSteps(config: unknown, on: Layout): Promise<Step[]> {
  const { tp, cp = 1, pp, set = [] } = on;
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-parity-'));
  try {
    writeFileSync(join(folder, 'run.yaml'), stringify(config));
    const sizes = { nproc: ranksOf(on), 'tp-size': tp, 'cp-size': cp, 'pp-size': pp };
    const layout = Object.entries(sizes).flatMap(([name, size]) => [`--${name}`, String(size)]);
    const where = ['--config', join(folder, 'run.yaml'), '--log-dir', join(folder, 'run')];
    const outcome = await mbridge(['pretrain', ...where, ...layout, '--device', 'cpu', '--json', ...set]);
    if (outcome.exitCode !== 0) throw new Error(`exit ${outcome.exitCode}\n${outcome.stdout}\n${outcome.stderr}`);
    const lines = outcome.stdout.split('\n').map((line) => JSON.parse(line) as Step & { type: string });
    return lines.filter((line) => line.type === 'step');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Largest relative distance of a metric over the steps. */
export function farthest(steps: readonly Step[], reference: readonly Step[], key: 'loss' | 'grad_norm' | 'lr'): number {
  if (steps.length !== reference.length)
    throw new Error(`${steps.length} steps where ${reference.length} are expected`);
  return Math.max(...steps.map((step, i) => Math.abs(step[key] - reference[i]![key]) / Math.abs(reference[i]![key])));
}
