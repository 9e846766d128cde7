import type { OutputFacts } from '../../outputs/line.js';
import type { StepPrediction } from '../../plan/predict-step.js';

/** With three digits, or all that stand before the point. */
function digits(value: number): string {
  return value.toLocaleString('en-US', { maximumSignificantDigits: Math.max(3, String(Math.round(value)).length) });
}

/** Sentences on a predicted step, for 80 columns. @param devices `GPU` or `rank`: what rates are given by */
export function predictionText(prediction: StepPrediction, per: string): string[] {
  const { stepMs, tokensPerSecond, tokensPerSecondPerDevice, mfu, bubble, parts } = prediction;
  const share = (ms: number): string => `${((100 * ms) / stepMs).toFixed(1)} %`;
  const names: readonly (readonly [string, number])[] = [
    ['products', parts.products],
    ['attention', parts.attention],
    ['norms and activations', parts.memory],
    ['between calls', parts.calls],
    ['exchanges', parts.exchanges],
    ['gradients and weights', parts.dataParallel],
    ['optimizer', parts.optimizer],
    ['filling and draining', parts.bubble],
  ];
  const shown = names.filter(([, ms]) => ms >= stepMs / 1000).map(([name, ms]) => `${name} ${share(ms)}`);
  const efficiency = mfu === null ? '' : `, MFU ${(100 * mfu).toFixed(1)} %`;
  return [
    `predicted: ${digits(stepMs)} ms a step, ${digits(tokensPerSecond)} tokens/s, ${digits(tokensPerSecondPerDevice)} a ${per}${efficiency}`,
    `           pipeline bubble ${(100 * bubble).toFixed(1)} %: of the stages on average; of the slowest:`,
    ...inLines(shown).map((line) => `           ${line}`),
  ];
}

/** Shares as a list, three to a line. */
function inLines(shares: readonly string[]): string[] {
  const lines = Array.from({ length: Math.ceil(shares.length / 3) }, (_, i) =>
    shares.slice(3 * i, 3 * i + 3).join(', '),
  );
  return lines.map((line, i) => (i === lines.length - 1 ? line : `${line},`));
}

/** The same for programs: units in the keys, as step lines have them. */
export function predictionJson(prediction: StepPrediction): NonNullable<OutputFacts<'plan'>['predicted']> {
  const { stepMs, tokensPerSecond, tokensPerSecondPerDevice, tflopsPerDevice, mfu, bubble, parts } = prediction;
  return {
    step_time_ms: stepMs,
    tokens_per_s: tokensPerSecond,
    tokens_per_s_per_device: tokensPerSecondPerDevice,
    tflops_per_device: tflopsPerDevice,
    ...(mfu === null ? {} : { mfu }),
    pipeline_bubble: bubble,
    parts_ms: {
      ...{ products: parts.products, attention: parts.attention, memory: parts.memory, calls: parts.calls },
      ...{ exchanges: parts.exchanges, data_parallel: parts.dataParallel, optimizer: parts.optimizer },
      bubble: parts.bubble,
    },
  };
}
