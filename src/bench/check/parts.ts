import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Check, CheckPlace, CheckRunner, Measure } from './check.js';
import { failureChecks } from './failures.js';
import { sampledChecks } from './sampled.js';
import { textRun, type Precision } from './text-run.js';
import { farthest, layoutName, ranksOf, type CheckLayout, type TrainedStep } from './train-run.js';

/** What `mbridge bench check` can check, in the order in which it does. */
export const PARTS = {
  fixtures: fixtureChecks,
  bits: bitChecks,
  layouts: layoutChecks,
  precision: precisionChecks,
  torch: torchChecks,
  sampled: sampledChecks,
  failures: failureChecks,
} as const satisfies Record<string, (place: CheckPlace) => Check[]>;
export type PartName = keyof typeof PARTS;

const ONE: CheckLayout = { tp: 1, pp: 1, dp: 1 };
const TP4: CheckLayout = { tp: 4, pp: 1, dp: 1 };
const PP4: CheckLayout = { tp: 1, pp: 4, dp: 1 };
const DP4: CheckLayout = { tp: 1, pp: 1, dp: 4 };
const TP2_PP2_DP2: CheckLayout = { tp: 2, pp: 2, dp: 2 };
const TP8: CheckLayout = { tp: 8, pp: 1, dp: 1 };
const DP8: CheckLayout = { tp: 1, pp: 1, dp: 8 };
const MICRO_2 = 'train.micro_batch_size=2';
const SELECTIVE = 'model.recompute_granularity=selective';
const VPP_2 = 'model.virtual_pipeline_model_parallel_size=2';
const OPTIM_GRADS = 'ddp.data_parallel_sharding_strategy=optim_grads';
const NCCL_ALONE = 'dist.peer_memory=false';

const RING: CheckLayout = { tp: 1, cp: 2, pp: 1, dp: 1, set: ['model.cp_comm_type=p2p'] };

/** Every fixture, and what else holds on any layout, runs on these. */
const LAYOUTS: readonly CheckLayout[] = [
  ONE,
  { tp: 2, pp: 1, dp: 1 },
  { tp: 1, pp: 2, dp: 1 },
  { tp: 1, pp: 1, dp: 2 },
  { tp: 2, pp: 2, dp: 1 },
  { tp: 2, pp: 1, dp: 2 },
  { tp: 1, cp: 2, pp: 1, dp: 1 },
];
/** One fixture runs on these too. */
const MORE_LAYOUTS: readonly CheckLayout[] = [
  { ...ONE, set: [MICRO_2] },
  { ...ONE, set: [SELECTIVE] },
  { tp: 2, pp: 1, dp: 1, set: ['model.sequence_parallel=false'] },
  { tp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity=full'] },
  { tp: 2, pp: 1, dp: 1, set: [NCCL_ALONE] },
  { tp: 1, pp: 1, dp: 2, set: [NCCL_ALONE] },
  { tp: 1, pp: 2, dp: 1, set: [VPP_2] },
  { tp: 1, pp: 1, dp: 2, set: [OPTIM_GRADS] },
  TP4,
  PP4,
  { ...DP4, set: [MICRO_2] },
  { tp: 1, pp: 2, dp: 2 },
  TP2_PP2_DP2,
  { tp: 4, pp: 1, dp: 2 },
  { tp: 2, pp: 4, dp: 1 },
  { tp: 1, cp: 2, pp: 1, dp: 1, set: [NCCL_ALONE, MICRO_2] },
  { tp: 2, cp: 2, pp: 1, dp: 1, set: ['model.recompute_granularity=full'] },
  { tp: 1, cp: 2, pp: 1, dp: 2, set: [OPTIM_GRADS] },
  { tp: 1, cp: 2, pp: 2, dp: 1, set: [VPP_2] },
  { tp: 2, cp: 2, pp: 2, dp: 1 },
  RING,
  { ...RING, dp: 2, set: [...(RING.set ?? []), MICRO_2] },
];
const FIXTURES = ['qwen3-tied', 'qwen3-untied', 'qwen3-masked', 'qwen3-packed'] as const;

/** Bounds of the parity tests on the CPU (test/parity); five times these on a GPU, whose sums are in another order. */
const PARITY = { loss: 2e-5, grad_norm: 2e-4 } as const;
const GPU_FACTOR = 5;

interface Trajectory {
  readonly optimizer: Readonly<Record<string, number>>;
  readonly batch: number;
  readonly seq: number;
  readonly packed?: boolean;
  readonly steps: readonly TrainedStep[];
}

function fixtureConfig(folder: string, { optimizer: o, steps, batch, seq, packed = false }: Trajectory): unknown {
  const documents = packed ? { document_attention: true, mask_document_starts: true } : {};
  return {
    model: { hf_path: folder, seq_length: seq },
    train: { train_iters: steps.length, global_batch_size: batch, micro_batch_size: 1 },
    optimizer: {
      lr: o['lr'],
      min_lr: o['min_lr'],
      weight_decay: o['weight_decay'],
      adam_beta1: o['beta1'],
      adam_beta2: o['beta2'],
      adam_eps: o['eps'],
      clip_grad: o['clip_grad_norm'],
    },
    scheduler: { lr_decay_style: 'cosine', lr_warmup_iters: o['warmup_steps'], lr_decay_iters: o['decay_steps'] },
    mixed_precision: 'fp32',
    checkpoint: { pretrained_checkpoint: folder },
    dataset: { type: 'jsonl', path: join(folder, 'tokens.jsonl'), shuffle: false, ...documents },
  };
}

/** Float32 training against what transformers and torch computed. */
function fixtureChecks({ device, fixtures }: CheckPlace): Check[] {
  const factor = device === 'cuda' ? GPU_FACTOR : 1;
  return FIXTURES.flatMap((name) => {
    const folder = join(fixtures, name);
    const layouts = name === 'qwen3-tied' ? [...LAYOUTS, ...MORE_LAYOUTS] : LAYOUTS;
    return layouts.map((layout): Check => ({
      part: 'fixtures',
      name: `${name} ${layoutName(layout)}`,
      ranks: ranksOf(layout),
      ...(existsSync(folder) ? {} : { impossible: `${folder} is not there (--fixtures)` }),
      run: async (runner) => {
        const trajectory = JSON.parse(readFileSync(join(folder, 'trajectory.json'), 'utf8')) as Trajectory;
        const steps = await runner.train(layout, { config: fixtureConfig(folder, trajectory) });
        return (['loss', 'grad_norm'] as const).map((key): Measure => ({
          what: key,
          value: farthest(steps, trajectory.steps, key),
          bound: PARITY[key] * factor,
        }));
      },
    }));
  });
}

/** What the model of a text run can be spread over 8 processes by: on the CPU it has 4 heads of keys. */
function eightRanks({ device }: CheckPlace): CheckLayout[] {
  return [TP2_PP2_DP2, DP8, ...(device === 'cuda' ? [TP8] : [])];
}

/** The same command twice gives the same bits. */
function bitChecks(place: CheckPlace): Check[] {
  const layouts = [...LAYOUTS, RING, DP4, ...eightRanks(place)];
  const args = textRun(place, 6);
  return layouts.map((layout): Check => ({
    part: 'bits',
    name: layoutName(layout),
    ranks: ranksOf(layout),
    run: async (runner) => {
      const first = await runner.train(layout, { args });
      const second = await runner.train(layout, { args });
      const differing = first.filter(
        ({ loss, grad_norm: norm }, i) => loss !== second[i]?.loss || norm !== second[i].grad_norm,
      );
      // A run without steps would agree with anything.
      const value = first.length === 6 && second.length === 6 ? differing.length : NaN;
      return [{ what: 'steps that differ', value, bound: 0 }];
    },
  }));
}

const LAYOUT_UPDATES = 20;
const LAYOUT_BOUND = { cuda: 2e-3, cpu: 1e-5 } as const;

/** The loss does not depend on the layout, but for rounding. */
function layoutChecks(place: CheckPlace): Check[] {
  const layouts = [...LAYOUTS.filter((layout) => layout !== ONE), RING, DP4, TP4, PP4, ...eightRanks(place)];
  const args = textRun(place, LAYOUT_UPDATES);
  return layouts.map((layout): Check => ({
    part: 'layouts',
    name: `${layoutName(layout)} against one process`,
    ranks: ranksOf(layout),
    run: async (runner) => {
      const reference = await runner.shared('layouts', () => runner.train(ONE, { args }));
      const steps = await runner.train(layout, { args });
      return [lossMeasure(steps, reference, LAYOUT_UPDATES, LAYOUT_BOUND[place.device])];
    },
  }));
}

const PRECISION_UPDATES = 50;

/** Rounding moves the loss by little: of bf16 against float32, and more of e4m3 against bf16. */
const PRECISION_BOUND = { bf16_mixed: 5e-3, fp8_mixed: 2e-2 } as const;

/** What is computed in few bits stays near what is computed in more, and near itself on other layouts. */
function precisionChecks(place: CheckPlace): Check[] {
  const part = 'precision';
  const onCpu = place.device === 'cpu' ? { impossible: 'the CPU has no bf16' } : {};
  const train = (runner: CheckRunner, precision: Precision, updates: number, layout = ONE): Promise<TrainedStep[]> => {
    const run = (): Promise<TrainedStep[]> => runner.train(layout, { args: textRun(place, updates, precision) });
    return layout === ONE ? runner.shared(`${part} ${precision} ${updates}`, run) : run();
  };
  const against = (of: keyof typeof PRECISION_BOUND, reference: Precision): Check => ({
    ...{ part, name: `${of} against ${reference}`, ranks: 1, ...onCpu },
    run: async (runner) => {
      const [exact, rounded] = [
        await train(runner, reference, PRECISION_UPDATES),
        await train(runner, of, PRECISION_UPDATES),
      ];
      return [lossMeasure(rounded, exact, PRECISION_UPDATES, PRECISION_BOUND[of])];
    },
  });
  const layouts = LAYOUTS.filter((layout) => layout !== ONE);
  return [
    against('bf16_mixed', 'fp32'),
    against('fp8_mixed', 'bf16_mixed'),
    ...layouts.map((layout): Check => ({
      ...{ part, name: `fp8_mixed ${layoutName(layout)} against one process`, ranks: ranksOf(layout), ...onCpu },
      run: async (runner) => {
        const reference = await train(runner, 'fp8_mixed', LAYOUT_UPDATES);
        const steps = await train(runner, 'fp8_mixed', LAYOUT_UPDATES, layout);
        return [lossMeasure(steps, reference, LAYOUT_UPDATES, LAYOUT_BOUND.cuda)];
      },
    })),
  ];
}

function lossMeasure(
  steps: readonly TrainedStep[],
  reference: readonly TrainedStep[],
  updates: number,
  bound: number,
): Measure {
  const value = steps.length === updates ? farthest(steps, reference, 'loss') : NaN;
  return { what: `loss over ${updates} updates`, value, bound };
}

/** What bench/torch_bf16_oracle.py writes beside the model and its tokens. */
interface Oracle {
  readonly config: { readonly mixed_precision: 'bf16_mixed' | 'fp32' };
  readonly steps: readonly TrainedStep[];
}

/** Against transformers in torch: same weights, same data, same schedule. */
function torchChecks({ device, oracle }: CheckPlace): Check[] {
  const file = oracle === null ? '' : join(oracle, 'oracle.json');
  const part = 'torch';
  if (!existsSync(file)) {
    const impossible = 'no oracle (run bench/torch_bf16_oracle.py, and give --oracle its folder)';
    return [{ part, name: 'against transformers', ranks: 1, impossible, run: () => Promise.resolve([]) }];
  }
  const { config, steps: reference } = JSON.parse(readFileSync(file, 'utf8')) as Oracle;
  const precision = config.mixed_precision;
  const bound = precision === 'fp32' ? PARITY.loss * (device === 'cuda' ? GPU_FACTOR : 1) : 3e-3;
  return [
    {
      part,
      name: `${precision} against transformers`,
      ranks: 1,
      ...(device === 'cpu' && precision !== 'fp32' ? { impossible: 'the CPU has no bf16' } : {}),
      run: async (runner) => [lossMeasure(await runner.train(ONE, { config }), reference, reference.length, bound)],
    },
  ];
}
