import { MbridgeError } from '../../base/errors.js';
import { resolvePrecision } from '../../config/layout.js';
import { modelShape } from '../../families/model-shape.js';
import type { RunConfig } from '../../config/schema.js';
import { loadBinding } from '../../engine/load.js';
import type { AttentionSizes } from '../../engine/attention-sizes.js';
import { tokenFlops } from '../../families/flops.js';
import { linearShapes } from '../../families/parameters.js';
import { measureAttention, type AttentionTiming } from './attention.js';
import { PASSES, measureGemm, type GemmTiming } from './gemm.js';
import { OP_NAMES, measureOp, type OpTiming } from './op-cases.js';
import { measureCeilings, openSession, tokensOf, type BenchSession, type Ceilings } from './session.js';
import type { Timing } from './timer.js';
import { versionsOf } from './versions.js';

/** The products and the attention of one micro-batch through the whole model, and nothing else. */
export interface Bound {
  readonly parts: readonly {
    readonly name: string;
    /** How many of them a micro-batch has. */
    readonly count: number;
    readonly flops: number;
    readonly timing: Timing;
  }[];
  /** Milliseconds of all parts. */
  readonly ms: number;
  readonly tokensPerSecond: number;
  readonly tflops: number;
  /** Of the device; 0 where it is not known. */
  readonly peakTflops: number;
}

/** What can be measured on one device, and what that finds. */
export interface Measured {
  readonly gemm: readonly GemmTiming[];
  readonly attention: readonly AttentionTiming[];
  readonly ops: readonly OpTiming[];
  readonly bound: Bound;
}
export type SingleBench = keyof Measured;

export interface DeviceMeasurement<Bench extends SingleBench> {
  /** The device's name. */
  readonly device: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly act: 'f32' | 'bf16';
  readonly ceilings: Ceilings;
  readonly found: Measured[Bench];
}

/** Of each sequence, where packing is measured. */
const PACKED_DOCUMENTS = 4;

type Measure<Found> = (session: BenchSession, cfg: RunConfig) => Found;

const MEASURES: { readonly [Bench in SingleBench]: Measure<Measured[Bench]> } = {
  gemm: measureProducts,
  attention: (session, cfg) => [
    ...measureAttention(session, attentionSizes(cfg, false)),
    ...measureAttention(session, attentionSizes(cfg, true)),
    ...measureAttention(session, attentionSizes(cfg, true), PACKED_DOCUMENTS),
  ],
  ops: measureOps,
  bound: measureBound,
};

/**
 * Opens the device, measures its ceilings and then what is asked for, in the sizes that a run of `cfg` has on each rank.
 * @throws MbridgeError MB_CONFIG_NOT_BUILT, exit 3, for products of fp8_mixed, which are others
 */
export function measureDevice<Bench extends SingleBench>(
  bench: Bench,
  cfg: RunConfig,
  kind: 'cpu' | 'cuda',
  mbridge: string,
): DeviceMeasurement<Bench> {
  if (cfg.mixed_precision === 'fp8_mixed' && (bench === 'gemm' || bench === 'bound')) {
    throw new MbridgeError('config', 'MB_CONFIG_NOT_BUILT', `bench ${bench} measures no products of e4m3 yet`, {
      hint: 'set mixed_precision=bf16_mixed; bench step --profile has those of a run in fp8_mixed',
    });
  }
  const act = resolvePrecision(cfg, kind) === 'fp32' ? 'f32' : 'bf16';
  const session = openSession(kind, loadBinding().cpuCount(), act);
  try {
    const ceilings = measureCeilings(session);
    const found = MEASURES[bench](session, cfg);
    return { device: session.device.info.name, versions: versionsOf(session.device, mbridge), act, ceilings, found };
  } finally {
    session.timer.dispose();
    session.device.close();
  }
}

function measureProducts(session: BenchSession, cfg: RunConfig): GemmTiming[] {
  const layers = linearShapes(modelShape(cfg), cfg.model.tensor_model_parallel_size);
  return layers.flatMap((layer) => PASSES.map((pass) => measureGemm(session, layer, pass, tokensOf(cfg))));
}

function attentionSizes(cfg: RunConfig, deterministic: boolean): AttentionSizes {
  const { numHeads, numKvHeads, headDim } = modelShape(cfg);
  const { tensor_model_parallel_size: tp, context_parallel_size: cp, seq_length: length } = cfg.model;
  const batch = cfg.train.micro_batch_size;
  const seq = length / (cp === 1 ? 1 : 2 * cp);
  return { batch, seq, keys: seq, heads: numHeads / tp, kvHeads: numKvHeads / tp, headDim, deterministic };
}

/** The calls of the attention of a layer on a rank, and how many there are of each. */
function attentionCalls(cfg: RunConfig): { sizes: AttentionSizes; count: number; name: string }[] {
  const { context_parallel_size: cp, deterministic } = cfg.model;
  const sizes = attentionSizes(cfg, deterministic);
  if (cp === 1) return [{ sizes, count: 1, name: 'attention' }];
  const others = { ...sizes, offset: sizes.seq };
  return [
    { sizes, count: 2, name: "attention to a chunk's own keys," },
    { sizes: others, count: 2 * cp - 1, name: "attention to another chunk's," },
  ];
}

function measureOps(session: BenchSession, cfg: RunConfig): OpTiming[] {
  const tokens = tokensOf(cfg);
  const { tensor_model_parallel_size: tp, sequence_parallel: sp, seq_length: seq } = cfg.model;
  const sizes = { shape: modelShape(cfg), tp, tokens, seq, localTokens: sp ? tokens / tp : tokens };
  return OP_NAMES.map((name) => measureOp(session, name, sizes));
}

function measureBound(session: BenchSession, cfg: RunConfig): Bound {
  const shape = modelShape(cfg);
  const { tensor_model_parallel_size: tp, seq_length: seq } = cfg.model;
  const tokens = tokensOf(cfg);
  const parts = [
    ...measureProducts(session, cfg).map(({ layer, pass, flops, timing }) => ({
      name: `${layer.name} ${pass}`,
      count: layer.count,
      flops,
      timing,
    })),
    ...attentionCalls(cfg).flatMap(({ sizes, count, name }) =>
      measureAttention(session, sizes).map(({ pass, flops, timing }) => ({
        name: `${name} ${pass}`,
        count: shape.numLayers * count,
        flops,
        timing,
      })),
    ),
  ];
  const ms = parts.reduce((sum, { count, timing }) => sum + count * timing.median, 0);
  const { layer, head } = tokenFlops(shape, seq);
  return {
    parts,
    ms,
    tokensPerSecond: (tokens * 1000) / ms / tp,
    tflops: ((shape.numLayers * layer + head) * tokens) / tp / ms / 1e9,
    peakTflops: session.device.info.peakTflops,
  };
}
