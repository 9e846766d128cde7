import { validateLayout, type DeviceKind, type RunLayout } from '../config/layout.js';
import type { RunConfig } from '../config/schema.js';
import type { Origin } from '../config/resolve.js';
import { MbridgeError } from '../base/errors.js';

/** A way to run a configuration: what may be changed without changing what is trained, or in which precision. */
export interface Setting {
  readonly tp: number;
  readonly cp: number;
  readonly pp: number;
  readonly vpp: number;
  readonly microBatch: number;
  readonly recompute: Recompute;
  /** What `selective` drops. */
  readonly modules: readonly RecomputeModule[];
  readonly sharding: Sharding;
}

export type Recompute = RunConfig['model']['recompute_granularity'];
type RecomputeModule = RunConfig['model']['recompute_modules'][number];
export type Sharding = RunConfig['ddp']['data_parallel_sharding_strategy'];

/** A setting as the run that it is. */
export interface Candidate {
  readonly setting: Setting;
  readonly config: RunConfig;
  readonly layout: RunLayout;
}

export interface SettingsRequest {
  readonly config: RunConfig;
  /** Of resolve: what a flag or an override says is left as it is. */
  readonly origins: ReadonlyMap<string, Origin>;
  readonly worldSize: number;
  /** Ranks of a node: the most of a tensor-parallel group. */
  readonly perNode: number;
  readonly device: DeviceKind;
}

/** The keys that a setting sets, as paths of the configuration. */
export const SETTING_KEYS = {
  tp: 'model.tensor_model_parallel_size',
  cp: 'model.context_parallel_size',
  pp: 'model.pipeline_model_parallel_size',
  vpp: 'model.virtual_pipeline_model_parallel_size',
  microBatch: 'train.micro_batch_size',
  recompute: 'model.recompute_granularity',
  modules: 'model.recompute_modules',
  sharding: 'ddp.data_parallel_sharding_strategy',
} as const satisfies Record<keyof Setting, string>;

/** Sequences from this length on are cut where nobody says otherwise: shorter ones fit a device with recompute. */
const LONG_SEQUENCE = 16_384;
/** A rank's tokens of a micro-batch: more make no product faster. */
const MOST_TOKENS = 65_536;
const MOST_CHUNKS = 8;

/** The setting that a configuration has. */
export function settingOf({ model, train, ddp }: RunConfig): Setting {
  return {
    tp: model.tensor_model_parallel_size,
    cp: model.context_parallel_size,
    pp: model.pipeline_model_parallel_size,
    vpp: model.virtual_pipeline_model_parallel_size ?? 1,
    microBatch: train.micro_batch_size,
    recompute: model.recompute_granularity,
    modules: model.recompute_modules,
    sharding: ddp.data_parallel_sharding_strategy,
  };
}

/** The configuration in another setting. What nobody set and follows from it follows again. */
export function withSetting(config: RunConfig, origins: SettingsRequest['origins'], setting: Setting): RunConfig {
  const { tp, cp, pp, vpp, microBatch, recompute, modules, sharding } = setting;
  const tokens = (config.model.seq_length * microBatch) / cp;
  const origin = origins.get('model.sequence_parallel')?.origin;
  const asked = origin !== undefined && origin !== 'derived';
  return {
    ...config,
    model: {
      ...config.model,
      tensor_model_parallel_size: tp,
      context_parallel_size: cp,
      pipeline_model_parallel_size: pp,
      virtual_pipeline_model_parallel_size: vpp === 1 ? null : vpp,
      recompute_granularity: recompute,
      recompute_modules: [...modules],
      sequence_parallel: asked ? config.model.sequence_parallel : tp > 1 && tokens % tp === 0,
    },
    train: { ...config.train, micro_batch_size: microBatch },
    ddp: { ...config.ddp, data_parallel_sharding_strategy: sharding },
  };
}

/** Every setting that the model, the batch and the ranks allow; in no order. */
export function possibleSettings(request: SettingsRequest): Candidate[] {
  const { config, worldSize, perNode, origins } = request;
  const { model, train } = config;
  const now = settingOf(config);
  const free = <K extends keyof Setting>(key: K, values: readonly Setting[K][]): readonly Setting[K][] => {
    const origin = origins.get(SETTING_KEYS[key])?.origin;
    return origin === 'flag' || origin === 'override' ? [now[key]] : values;
  };
  const long = model.seq_length >= LONG_SEQUENCE || now.cp > 1;
  const found: Candidate[] = [];
  const kinds = free('recompute', ['none', 'selective', 'full']);
  const recomputes = recomputeChoices(request).filter(({ recompute }) => kinds.includes(recompute));
  const tps = free(
    'tp',
    divisors(worldSize).filter((tp) => tp <= perNode),
  );
  for (const tp of tps) {
    for (const cp of free('cp', long ? divisors(worldSize / tp) : [1])) {
      const ranks = worldSize / (tp * cp);
      for (const pp of free(
        'pp',
        divisors(ranks).filter((pp) => pp <= model.num_hidden_layers),
      )) {
        const dp = ranks / pp;
        const samples = train.global_batch_size / dp;
        const chunks = divisors(model.num_hidden_layers / pp).filter((vpp) => vpp <= MOST_CHUNKS);
        for (const vpp of free('vpp', pp === 1 ? [1] : chunks)) {
          for (const microBatch of free('microBatch', microBatches(samples, model.seq_length / cp))) {
            for (const { recompute, modules } of recomputes) {
              for (const sharding of free('sharding', shardings(config, dp * cp))) {
                const candidate = asCandidate(request, { tp, cp, pp, vpp, microBatch, recompute, modules, sharding });
                if (candidate !== null) found.push(candidate);
              }
            }
          }
        }
      }
    }
  }
  return found;
}

/** What the rules of {@link validateLayout} leave. */
function asCandidate(request: SettingsRequest, setting: Setting): Candidate | null {
  const config = withSetting(request.config, request.origins, setting);
  try {
    return { setting, config, layout: validateLayout(config, request.worldSize, { device: request.device }) };
  } catch (error) {
    if (error instanceof MbridgeError) return null;
    throw error;
  }
}

/** What costs no product, as it is by default; the products of the MLP before attention, which costs more and saves less. */
const CHEAP: readonly RecomputeModule[] = ['norm', 'rope', 'swiglu'];

/** From what drops least to what drops most; the one that is there, where somebody has chosen modules. */
function recomputeChoices({ config, origins }: SettingsRequest): Pick<Setting, 'recompute' | 'modules'>[] {
  const { recompute, modules } = settingOf(config);
  if (origins.has(SETTING_KEYS.modules)) return [{ recompute, modules }];
  return [
    { recompute: 'none', modules },
    { recompute: 'selective', modules: CHEAP },
    { recompute: 'selective', modules: [...CHEAP, 'mlp'] },
    { recompute: 'full', modules },
  ];
}

/** How much of a layer a setting drops, to be compared. */
export function recomputeLevel({ recompute, modules }: Setting): number {
  if (recompute === 'selective') return modules.includes('mlp') ? 2 : 1;
  return recompute === 'none' ? 0 : 3;
}

/** `no_shard` keeps more and gains nothing, so it stays only where it was asked for. */
function shardings({ optimizer, ddp }: RunConfig, replicas: number): Sharding[] {
  const now = ddp.data_parallel_sharding_strategy;
  if (!optimizer.use_distributed_optimizer || now === 'no_shard') return [now];
  return replicas === 1 ? [now] : ['optim', 'optim_grads'];
}

/** Sizes that divide a replica's samples: powers of two, and what is asked for is one of them or not. */
function microBatches(samples: number, tokens: number): number[] {
  if (!Number.isInteger(samples)) return [];
  const sizes = Array.from({ length: 12 }, (_, i) => 2 ** i).filter((size) => samples % size === 0);
  return sizes.filter((size) => size === 1 || size * tokens <= MOST_TOKENS);
}

function divisors(n: number): number[] {
  if (!Number.isInteger(n)) return [1];
  return Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
}
