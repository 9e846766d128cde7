import { configChanges } from '../../config/changes.js';
import { resolvePrecision, type RunLayout } from '../../config/layout.js';
import type { RunConfig } from '../../config/schema.js';
import type { DataFingerprint } from '../../data/dataset.js';
import { modelSettings } from '../../families/model-shape.js';
import { adaptersOf } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import type { Device } from '../../engine/device.js';
import { STATE } from '../../engine/ops.js';
import { packageVersion } from '../../base/package-root.js';
import { FORMAT, toJsonNumber, VERSION, type CheckpointState } from './checkpoint-format.js';

export interface RunFacts {
  readonly cfg: RunConfig;
  readonly layout: RunLayout;
  readonly device: Device;
  /** What the model gives for each token; logits by default. */
  readonly head?: HeadKind;
}

/** The training state after update `step`, as it is saved. */
export function describeState(
  { cfg, layout, device, head }: RunFacts,
  at: {
    step: number;
    consumedSamples: number;
    scalars: Float64Array;
    lineage: string;
    data: DataFingerprint | null;
  },
): CheckpointState {
  const adapters = adaptersOf(cfg.peft);
  const scalar = (index: number): number | string => toJsonNumber(at.scalars[index] as number);
  const { worldSize, tp, cp, dp, pp, vpp, ep } = layout;
  return {
    format: FORMAT,
    version: VERSION,
    step: at.step,
    consumed_samples: at.consumedSamples,
    model: modelSettings(cfg.model),
    ...(head === 'value' ? { head } : {}),
    ...(adapters === null ? {} : { adapters }),
    precision: resolvePrecision(cfg, device.kind),
    optimizer: {
      name: 'adamw',
      updates: scalar(STATE.step),
      lr: scalar(STATE.lr),
      skipped_in_row: scalar(STATE.skippedInRow),
      scalars: Array.from(at.scalars, toJsonNumber),
    },
    rng: { seed: cfg.rng.seed, data_seed: cfg.dataset.seed },
    layout: { world_size: worldSize, tp, cp, dp, pp, vpp, ep },
    versions: programFacts(device),
    config: cfg,
    lineage: at.lineage,
    data: at.data,
  };
}

/** What decides the bits beside the configuration: this program, its engine and its libraries. */
function programFacts(device: Device): Record<string, string> {
  const engine = JSON.parse(device.binding.describe(device.kind)) as Record<string, unknown>;
  const facts = Object.entries(engine).filter(([key]) => key !== 'cores');
  return {
    mbridge: packageVersion(),
    ...Object.fromEntries(facts.map(([key, value]) => [`engine.${key}`, String(value)])),
  };
}

/** In words, each thing that makes a resumed run differ from the one that was saved. */
export function differences(saved: CheckpointState, { cfg, layout, device }: RunFacts): string[] {
  const now = programFacts(device);
  const changed = (what: string, before: unknown, after: unknown): string[] =>
    JSON.stringify(before) === JSON.stringify(after) ? [] : [`${what} was ${before}, is ${after}`];
  const old = saved.config;
  const sections = ['dataset', 'optimizer', 'scheduler'] as const;
  const wasSet = old === null ? [] : configChanges(old, cfg);
  const counts = ['train.global_batch_size', 'train.micro_batch_size', 'model.seq_length'];
  const products = ['model.fp8_first_last_layers_bf16', 'model.fp8_wgrad'];
  const relevant = wasSet.filter(
    ({ key }) => [...counts, ...products].includes(key) || sections.some((section) => key.startsWith(`${section}.`)),
  );
  return [
    ...changed('precision', saved.precision, resolvePrecision(cfg, device.kind)),
    ...Object.keys({ ...saved.versions, ...now }).flatMap((key) => changed(key, saved.versions[key], now[key])),
    ...(['tp', 'cp', 'dp', 'pp'] as const).flatMap((key) => changed(key, saved.layout?.[key], layout[key])),
    ...relevant.flatMap(({ key, a, b }) => changed(key, JSON.stringify(a), JSON.stringify(b))),
  ];
}
