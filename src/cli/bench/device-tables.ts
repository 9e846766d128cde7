import { tokensOf } from '../../bench/device/session.js';
import type { DeviceMeasurement, SingleBench } from '../../bench/device/single.js';
import { floorMs } from '../../bench/run/step-profile.js';
import type { RunConfig } from '../../config/schema.js';
import { percent, round, timeOf } from './numbers.js';
import type { Findings, Row } from './report.js';

type Describe<Bench extends SingleBench> = (measured: DeviceMeasurement<Bench>, cfg: RunConfig) => Findings;

const DESCRIBE: { readonly [Bench in SingleBench]: Describe<Bench> } = { gemm, attention, ops, bound };

/** What was measured on one device, as tables. */
export function deviceFindings<Bench extends SingleBench>(
  bench: Bench,
  measured: DeviceMeasurement<Bench>,
  cfg: RunConfig,
): Findings {
  return DESCRIBE[bench](measured, cfg);
}

/** `hidden 2560, 36 layers, tp 2, 4096 tokens, bf16`; sequences are shared where there is a cp. */
function subject(cfg: RunConfig, { act }: Pick<DeviceMeasurement<SingleBench>, 'act'>): string {
  const { model } = cfg;
  const sizes = `hidden ${model.hidden_size}, ${model.num_hidden_layers} layers`;
  const { tensor_model_parallel_size: tp, context_parallel_size: cp } = model;
  return `${sizes}, tp ${tp},${cp > 1 ? ` cp ${cp},` : ''} ${tokensOf(cfg)} tokens, ${act}`;
}

const MEDIANS =
  'ms: median of the samples, each of several calls over buffers that outgrow the cache; range: fastest to slowest sample';

function gemm(measured: DeviceMeasurement<'gemm'>, cfg: RunConfig): Findings {
  const rows = measured.found.map(({ layer, pass, flops, timing }): Row => {
    const tflops = flops / timing.median / 1e9;
    return {
      layer: layer.name,
      pass,
      inputs: layer.inputs,
      outputs: layer.outputs,
      ...timeOf(timing),
      tflop_per_s: round(tflops),
      ceiling_percent: percent(tflops, measured.ceilings.gemmTflops),
    };
  });
  const wgrad = 'wgrad adds to float32 gradients';
  return {
    tables: [{ table: 'products', title: `products: ${subject(cfg, measured)}`, rows }],
    notes: [wgrad, MEDIANS],
  };
}

function attention(measured: DeviceMeasurement<'attention'>, cfg: RunConfig): Findings {
  const rows = measured.found.map(({ pass, deterministic, documents, flops, kernel, workspaceBytes, timing }): Row => {
    const tflops = flops / timing.median / 1e9;
    return {
      pass,
      deterministic,
      documents,
      kernel,
      workspace_bytes: workspaceBytes,
      ...timeOf(timing),
      tflop_per_s: round(tflops),
      ceiling_percent: percent(tflops, measured.ceilings.gemmTflops),
    };
  });
  const counted = 'causal: half of the square counts, of each document in a sequence; the backward as 2.5 forwards';
  return {
    tables: [{ table: 'attention', title: `attention: ${subject(cfg, measured)}`, rows }],
    notes: [counted, MEDIANS],
  };
}

function ops(measured: DeviceMeasurement<'ops'>, cfg: RunConfig): Findings {
  const { ceilings, found } = measured;
  const rows = found.map(({ name, cost, timing }): Row => {
    const rate = cost.bytes / timing.median / 1e6;
    return {
      op: name,
      moved_bytes: cost.bytes,
      ...timeOf(timing),
      floor_ms: round(floorMs(cost, ceilings)),
      gb_per_s: round(rate),
      copy_percent: percent(rate, ceilings.copyGBs),
    };
  });
  const bytes = 'MB: each input read once, each output written once; floor: that at the speed of the copy';
  return { tables: [{ table: 'ops', title: `ops: ${subject(cfg, measured)}`, rows }], notes: [bytes, MEDIANS] };
}

function bound(measured: DeviceMeasurement<'bound'>, cfg: RunConfig): Findings {
  const { parts, ms, tokensPerSecond, tflops, peakTflops } = measured.found;
  const rows = parts.map(({ name, count, flops, timing }): Row => ({
    part: name,
    count,
    each_ms: round(timing.median),
    total_ms: round(count * timing.median),
    tflop_per_s: round(flops / timing.median / 1e9),
    bound_percent: percent(count * timing.median, ms),
  }));
  const how = `attention ${cfg.model.deterministic ? '' : 'not '}deterministic`;
  const whole: Row = {
    micro_batch_ms: round(ms),
    tokens_per_s_per_device: Math.round(tokensPerSecond),
    tflop_per_s_per_device: round(tflops),
    ...(peakTflops > 0 ? { mfu_percent: percent(tflops, peakTflops), peak_tflop_per_s: peakTflops } : {}),
  };
  return {
    tables: [
      { table: 'parts', title: `bound: ${subject(cfg, measured)}, ${how}`, rows },
      { table: 'bound', title: 'the bound of a run', rows: [whole] },
    ],
    notes: [MEDIANS],
  };
}
