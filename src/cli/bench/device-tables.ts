import { tokensOf } from '../../bench/device/session.js';
import type { DeviceMeasurement, SingleBench } from '../../bench/device/single.js';
import { floorMs } from '../../bench/run/step-profile.js';
import type { RunConfig } from '../../config/schema.js';
import { percent, rangeText, round } from './numbers.js';
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
      in: layer.inputs,
      out: layer.outputs,
      ms: round(timing.median),
      range: rangeText(timing),
      'TFLOP/s': round(tflops),
      '% of ceiling': percent(tflops, measured.ceilings.gemmTflops),
    };
  });
  const wgrad = 'wgrad adds to float32 gradients';
  return { tables: [{ title: `products: ${subject(cfg, measured)}`, rows }], notes: [wgrad, MEDIANS] };
}

function attention(measured: DeviceMeasurement<'attention'>, cfg: RunConfig): Findings {
  const rows = measured.found.map(({ pass, deterministic, documents, flops, kernel, workspaceBytes, timing }): Row => {
    const tflops = flops / timing.median / 1e9;
    return {
      pass,
      deterministic: deterministic ? 'yes' : 'no',
      documents,
      kernel,
      'workspace MB': round(workspaceBytes / 1e6),
      ms: round(timing.median),
      range: rangeText(timing),
      'TFLOP/s': round(tflops),
      '% of ceiling': percent(tflops, measured.ceilings.gemmTflops),
    };
  });
  const counted = 'causal: half of the square counts, of each document in a sequence; the backward as 2.5 forwards';
  return { tables: [{ title: `attention: ${subject(cfg, measured)}`, rows }], notes: [counted, MEDIANS] };
}

function ops(measured: DeviceMeasurement<'ops'>, cfg: RunConfig): Findings {
  const { ceilings, found } = measured;
  const rows = found.map(({ name, cost, timing }): Row => {
    const rate = cost.bytes / timing.median / 1e6;
    return {
      op: name,
      MB: round(cost.bytes / 1e6),
      ms: round(timing.median),
      range: rangeText(timing),
      'floor ms': round(floorMs(cost, ceilings)),
      'GB/s': round(rate),
      '% of copy': percent(rate, ceilings.copyGBs),
    };
  });
  const bytes = 'MB: each input read once, each output written once; floor: that at the speed of the copy';
  return { tables: [{ title: `ops: ${subject(cfg, measured)}`, rows }], notes: [bytes, MEDIANS] };
}

function bound(measured: DeviceMeasurement<'bound'>, cfg: RunConfig): Findings {
  const { parts, ms, tokensPerSecond, tflops, peakTflops } = measured.found;
  const rows = parts.map(({ name, count, flops, timing }): Row => ({
    part: name,
    count,
    'ms each': round(timing.median),
    'ms in all': round(count * timing.median),
    'TFLOP/s': round(flops / timing.median / 1e9),
    '% of bound': percent(count * timing.median, ms),
  }));
  const how = `attention ${cfg.model.deterministic ? '' : 'not '}deterministic`;
  const rates = `${Math.round(tokensPerSecond).toLocaleString('en-US')} tokens/s/GPU, ${round(tflops)} TFLOP/s/GPU`;
  const mfu = peakTflops > 0 ? `, MFU ${percent(tflops, peakTflops)} % of ${peakTflops} TFLOP/s` : '';
  return {
    tables: [{ title: `bound: ${subject(cfg, measured)}, ${how}`, rows }],
    notes: [`bound: ${round(ms)} ms a micro-batch, ${rates}${mfu}`, MEDIANS],
  };
}
