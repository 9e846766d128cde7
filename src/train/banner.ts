import { formatBytes, formatCount } from '../base/format-amount.js';
import type { RunConfig } from '../config/schema.js';
import type { DatasetConfig } from '../config/schema.js';
import type { Announcement } from '../job/shared/run-start.js';
import { checkpointBytes } from './default-saves.js';
import type { RunPlan } from './plan.js';

/** What a run begins with: enough to see at a glance that it is the one that was meant. */
export interface BannerFacts {
  readonly name: string;
  readonly config: RunConfig;
  readonly plan: RunPlan;
  /** As people read it. */
  readonly runDir: string;
  /** `checkpoint.save`, as people read it. */
  readonly saveFolder: string | null;
  /** Why nothing is saved although it could be. */
  readonly unsaved?: string | undefined;
  /** Whether the samples are the program's, whatever the configuration names. */
  readonly ownData?: boolean;
  /** --max-restarts */
  readonly restarts?: number;
  /** Whether torchrun or its like starts the ranks. */
  readonly external?: boolean;
}

/** The lines of the banner, of 80 columns where paths allow it, and the same for `--json`. */
export function announceRun(facts: BannerFacts): Announcement {
  const { name, config, plan, runDir } = facts;
  const { train, model } = config;
  const tokens = train.train_iters * plan.tokensPerStep;
  const rows: [string, string][] = [
    ['model', modelText(config, plan)],
    ['layout', layoutText(plan)],
    ['data', facts.ownData === true ? 'samples of the program' : dataText(config.dataset)],
    ...validationRow(config),
    [
      'batch',
      `${plural(train.global_batch_size, 'sample')} x ${n(model.seq_length)} tokens, ${plural(train.train_iters, 'update')}: ${formatCount(tokens)} tokens`,
    ],
    ['memory', `${formatBytes(most(plan))} planned on the fullest rank`],
    ['saves', savesText(facts)],
    ...copiesRow(facts),
    ['run', runDir],
    ['stop', stopText(facts)],
  ];
  const { worldSize: ranks, tp, cp, dp, pp } = plan.layout;
  const { save } = config.checkpoint;
  return {
    lines: [name, ...rows.map(([head, text]) => `  ${head.padEnd(9)} ${text}`)],
    facts: {
      name,
      parameters: plan.parameters,
      trained_parameters: plan.trainedParameters,
      device: plan.device,
      precision: plan.precision,
      ranks,
      layout: { tp, cp, dp, pp },
      updates: train.train_iters,
      tokens_per_update: plan.tokensPerStep,
      flops_per_update: plan.flopsPerStep,
      planned_memory_bytes: most(plan),
      dataset: facts.ownData === true ? 'own' : config.dataset.type,
      save: save,
      ...(save === null ? {} : { checkpoint_bytes: checkpointBytes(plan) }),
      ...(config.checkpoint.non_persistent_save_interval === null ? {} : { copy_bytes: copyBytes(plan) }),
    },
  };
}

function n(value: number): string {
  return value.toLocaleString('en-US');
}

function plural(count: number, word: string): string {
  return `${n(count)} ${word}${count === 1 ? '' : 's'}`;
}

function modelText({ model, peft }: RunConfig, { parameters, trainedParameters: trained, precision }: RunPlan): string {
  const shape = `${plural(model.num_hidden_layers, 'layer')} of ${n(model.hidden_size)}, vocabulary ${n(model.vocab_size)}`;
  const part = `\n  ${''.padEnd(9)} ${formatCount(trained)} of them trained (${percent(trained / parameters)})`;
  const how = peft.type === 'none' ? '' : `: ${peft.type} of rank ${peft.dim}, alpha ${peft.alpha}`;
  return `${formatCount(parameters)} parameters: ${shape}, ${precision}${precision === 'fp8_mixed' ? ' (MFU is of the bf16 peak)' : ''}${trained < parameters ? `${part}${how}` : ''}`;
}

function percent(share: number): string {
  return `${(100 * share).toPrecision(2)} %`;
}

function layoutText({ layout, device }: RunPlan): string {
  const { worldSize, tp, cp, dp, pp, vpp, microBatches } = layout;
  const sizes = [
    `tp ${tp}`,
    ...(cp > 1 ? [`cp ${cp}`] : []),
    `dp ${dp}`,
    `pp ${pp}`,
    ...(vpp > 1 ? [`vp ${vpp}`] : []),
  ];
  const where = device === 'cuda' ? 'GPUs' : 'the CPU';
  const processes = `${n(worldSize)} process${worldSize === 1 ? '' : 'es'} on ${where}`;
  return `${sizes.join(', ')}: ${processes}, ${plural(microBatches, 'micro-batch').replace(/batchs$/, 'batches')} a replica`;
}

function dataText(dataset: DatasetConfig): string {
  if (dataset.type === 'mock') return 'mock tokens: the loss means nothing';
  if (dataset.type !== 'indexed' || dataset.blend === null) return `${dataset.path ?? ''} (${dataset.type})`;
  return `a blend of ${plural(dataset.blend.length, 'source')} (indexed)`;
}

function validationRow({ validation }: RunConfig): [string, string][] {
  const { eval_interval: interval, sets } = validation;
  if (interval === null) return [];
  return [['validate', `every ${plural(interval, 'update')}: ${Object.keys(sets).join(', ')}`]];
}

function savesText({ config, plan, saveFolder, unsaved }: BannerFacts): string {
  if (saveFolder === null) return unsaved ?? 'nothing (checkpoint.save=null)';
  const { save_interval: interval, keep_last: last, keep_every: every } = config.checkpoint;
  const when =
    interval === null
      ? 'at the end and when stopped'
      : `every ${plural(interval, 'update')}, at the end and when stopped`;
  const kept = last === null ? 'all kept' : `the last ${last} kept${every === null ? '' : `, and every ${every}`}`;
  return `${when}: ${formatBytes(checkpointBytes(plan))} each, ${kept}\n  ${''.padEnd(9)} in ${saveFolder}`;
}

function copiesRow({ config, plan }: BannerFacts): [string, string][] {
  const { non_persistent_save_interval: interval } = config.checkpoint;
  if (interval === null) return [];
  const when = interval === 1 ? 'every update' : `every ${plural(interval, 'update')}`;
  return [['copies', `${when} in memory, for restarts: ${formatBytes(copyBytes(plan))} of this machine`]];
}

function copyBytes({ ranks }: RunPlan): number {
  return ranks.reduce((sum, rank) => sum + rank.copyBytes, 0);
}

function stopText({ saveFolder, restarts = 0, external = false }: BannerFacts): string {
  const saved = saveFolder === null ? 'ends after this update, unsaved' : 'saves after this update';
  if (external) return `SIGTERM, SIGUSR1 or Ctrl-C to any rank ${saved}`;
  const again = restarts === 0 ? '' : `; after a failure up to ${plural(restarts, 'restart')}`;
  return `Ctrl-C ${saved}, twice ends at once${again}`;
}

function most({ ranks, device }: RunPlan): number {
  const bytes = ranks.map(({ totalBytes, runtimeBytes, hostBytes, copyBytes: copies }) => {
    return totalBytes + (device === 'cuda' ? runtimeBytes : hostBytes + copies);
  });
  return bytes.reduce((a, b) => Math.max(a, b), 0);
}
