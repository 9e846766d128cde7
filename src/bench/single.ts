import type { RunConfig } from '../config/schema.js';
import { resolvePrecision } from '../config/layout.js';
import { modelShape } from '../config/model-shape.js';
import { loadBinding } from '../engine/load.js';
import type { AttentionSizes } from '../engine/ops.js';
import { tokenFlops } from '../model/flops.js';
import { measureAttention } from './attention.js';
import { PASSES, linearShapes, measureGemm } from './gemm.js';
import { OP_NAMES, measureOp } from './op-cases.js';
import { versionsOf, type BenchReport } from './report.js';
import {
  measureCeilings,
  openSession,
  percent,
  round,
  spread,
  tokensOf,
  type BenchSession,
  type Row,
} from './session.js';
import { floorMs } from './step-profile.js';

/** Measurements on one device, of the sizes that a run of `cfg` has on each rank. */
export const SINGLE_BENCHES = { gemm, attention, ops, bound } as const;
export type SingleBench = keyof typeof SINGLE_BENCHES;

/** What a measurement says beside what is the same for all. */
type Findings = Pick<BenchReport, 'tables' | 'notes'>;

interface Work {
  readonly session: BenchSession;
  readonly cfg: RunConfig;
  readonly ceilings: NonNullable<BenchReport['ceilings']>;
}

/** Opens the device, measures its ceilings and then what is asked for. */
export function runSingleBench(
  bench: SingleBench,
  cfg: RunConfig,
  where: { device: 'cpu' | 'cuda'; command: string; version: string },
): BenchReport {
  const act = resolvePrecision(cfg, where.device) === 'fp32' ? 'f32' : 'bf16';
  const session = openSession(where.device, loadBinding().cpuCount(), act);
  try {
    const ceilings = measureCeilings(session);
    const findings = SINGLE_BENCHES[bench]({ session, cfg, ceilings });
    return {
      bench,
      command: where.command,
      date: new Date().toISOString(),
      device: session.device.info.name,
      versions: versionsOf(session.device, where.version),
      ceilings,
      ...findings,
    };
  } finally {
    session.device.close();
  }
}

/** `qwen3 of 36 layers, tp 2, 4096 tokens, bf16` */
function subject({ cfg, session }: Work): string {
  const { model } = cfg;
  const sizes = `hidden ${model.hidden_size}, ${model.num_hidden_layers} layers`;
  return `${sizes}, tp ${model.tensor_model_parallel_size}, ${tokensOf(cfg)} tokens, ${session.act}`;
}

const MEDIANS =
  'ms: median of the samples, each of several calls over buffers that outgrow the cache; range: fastest to slowest sample';

function gemm(work: Work): Findings {
  const { session, cfg, ceilings } = work;
  const layers = linearShapes(modelShape(cfg), cfg.model.tensor_model_parallel_size);
  const rows = layers.flatMap((layer) =>
    PASSES.map((pass): Row => {
      const { flops, timing } = measureGemm(session, layer, pass, tokensOf(cfg));
      const tflops = flops / timing.median / 1e9;
      return {
        layer: layer.name,
        pass,
        in: layer.inputs,
        out: layer.outputs,
        ms: round(timing.median),
        range: spread(timing),
        'TFLOP/s': round(tflops),
        '% of ceiling': percent(tflops, ceilings.gemmTflops),
      };
    }),
  );
  const wgrad = 'wgrad adds to float32 gradients';
  return { tables: [{ title: `products: ${subject(work)}`, rows }], notes: [wgrad, MEDIANS] };
}

function attentionSizes(cfg: RunConfig, deterministic: boolean): AttentionSizes {
  const { numHeads, numKvHeads, headDim } = modelShape(cfg);
  const tp = cfg.model.tensor_model_parallel_size;
  const { seq_length: seq } = cfg.model;
  const batch = cfg.train.micro_batch_size;
  return { batch, seq, heads: numHeads / tp, kvHeads: numKvHeads / tp, headDim, deterministic };
}

function attention(work: Work): Findings {
  const { session, cfg, ceilings } = work;
  const rows = [false, true].flatMap((deterministic) =>
    measureAttention(session, attentionSizes(cfg, deterministic)).map((result): Row => {
      const tflops = result.flops / result.timing.median / 1e9;
      return {
        pass: result.pass,
        deterministic: deterministic ? 'yes' : 'no',
        kernel: result.kernel,
        'workspace MB': round(result.workspaceBytes / 1e6),
        ms: round(result.timing.median),
        range: spread(result.timing),
        'TFLOP/s': round(tflops),
        '% of ceiling': percent(tflops, ceilings.gemmTflops),
      };
    }),
  );
  const flops = 'causal: half of the square counts; the backward as 2.5 forwards';
  return { tables: [{ title: `attention: ${subject(work)}`, rows }], notes: [flops, MEDIANS] };
}

function ops(work: Work): Findings {
  const { session, cfg, ceilings } = work;
  const tokens = tokensOf(cfg);
  const { tensor_model_parallel_size: tp, sequence_parallel: sp, seq_length: seq } = cfg.model;
  const sizes = { shape: modelShape(cfg), tp, tokens, seq, localTokens: sp ? tokens / tp : tokens };
  const rows = OP_NAMES.map((name): Row => {
    const { cost, timing } = measureOp(session, name, sizes);
    return {
      op: name,
      MB: round(cost.bytes / 1e6),
      ms: round(timing.median),
      range: spread(timing),
      'floor ms': round(floorMs(cost, ceilings)),
      'GB/s': round(cost.bytes / timing.median / 1e6),
      '% of copy': percent(cost.bytes / timing.median / 1e6, ceilings.copyGBs),
    };
  });
  const bytes = 'MB: each input read once, each output written once; floor: that at the speed of the copy';
  return { tables: [{ title: `ops: ${subject(work)}`, rows }], notes: [bytes, MEDIANS] };
}

/** The products and the attention of one micro-batch through the whole model, and nothing else. */
function bound(work: Work): Findings {
  const { session, cfg } = work;
  const shape = modelShape(cfg);
  const { tensor_model_parallel_size: tp, deterministic, seq_length: seq } = cfg.model;
  const tokens = tokensOf(cfg);
  const parts = [
    ...linearShapes(shape, tp).flatMap((layer) =>
      PASSES.map((pass) => {
        const { flops, timing } = measureGemm(session, layer, pass, tokens);
        return { name: `${layer.name} ${pass}`, count: layer.count, flops, timing };
      }),
    ),
    ...measureAttention(session, attentionSizes(cfg, deterministic)).map(({ pass, flops, timing }) => ({
      name: `attention ${pass}`,
      count: shape.numLayers,
      flops,
      timing,
    })),
  ];
  const total = parts.reduce((sum, { count, timing }) => sum + count * timing.median, 0);
  const rows = parts.map(({ name, count, flops, timing }): Row => ({
    part: name,
    count,
    'ms each': round(timing.median),
    'ms in all': round(count * timing.median),
    'TFLOP/s': round(flops / timing.median / 1e9),
    '% of bound': percent(count * timing.median, total),
  }));
  const { layer, head } = tokenFlops(shape, seq);
  const tflops = ((shape.numLayers * layer + head) * tokens) / tp / total / 1e9;
  const { peakTflops } = session.device.info;
  const mfu = peakTflops > 0 ? `, MFU ${percent(tflops, peakTflops)} % of ${peakTflops} TFLOP/s` : '';
  const perSecond = Math.round((tokens * 1000) / total / tp).toLocaleString('en-US');
  return {
    tables: [{ title: `bound: ${subject(work)}, attention ${deterministic ? '' : 'not '}deterministic`, rows }],
    notes: [
      `bound: ${round(total)} ms a micro-batch, ${perSecond} tokens/s/GPU, ${round(tflops)} TFLOP/s/GPU${mfu}`,
      MEDIANS,
    ],
  };
}
