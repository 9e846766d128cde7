import { describe, expect, it } from 'vitest';
import type { StepEvent } from '../../../src/job/shared/messages.js';
import type { StepStyle } from '../../../src/job/shared/step-line.js';
import { EventLines, formatLogLine, paintFor } from '../../../src/job/shared/console-lines.js';

const STEP = {
  type: 'step' as const,
  step: 3,
  loss: 5.12341,
  grad_norm: 1.234,
  lr: 1e-3,
  tokens: 2048,
  step_time_ms: 812.4,
};

describe('a step', () => {
  const STYLE = { json: false, totalSteps: 50, device: 'cpu' as const };
  const RATES = { tokens_per_s_per_device: 19600, tflops_per_device: 545.02, mfu: 0.5511 };
  const MORE = { eta_s: 3723, tokens_seen: 6144, memory_bytes: 124.1 * 2 ** 20, data_ms: 0.84 };
  it.each<[Partial<StepStyle>, Partial<StepEvent>, string]>([
    [{}, {}, 'step  3/50  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms'],
    [
      {},
      { tokens_per_s_per_device: 2521.9, mfu: 0 },
      'step  3/50  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms   2,522 tok/s',
    ],
    [
      { ranks: 2 },
      { tokens_per_s_per_device: 2521.9 },
      'step  3/50  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms   2,522 tok/s/rank',
    ],
    [
      { ranks: 2, device: 'cuda' as const },
      { ...RATES, ...MORE },
      'step  3/50  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms  19,600 tok/s/GPU  MFU 55.1 %  left 1:02:03  6.14k tokens  124.1 MiB  data 0.8 ms  545.0 TFLOP/s/GPU',
    ],
    [
      { ranks: 2, device: 'cuda' as const, columns: 80 },
      { ...RATES, ...MORE },
      'step  3/50  loss 5.1234  norm  1.23  lr 1.0e-3   812 ms  19,600 tok/s/GPU',
    ],
    [
      {},
      { grad_norm: 0.00012, step_time_ms: 3.14159, lr: 0 },
      'step  3/50  loss 5.1234  norm 1.20e-4  lr 0.0e+0   3.1 ms',
    ],
    [{ validates: true }, {}, 'step  3/50  loss 5.1234  val      -  norm  1.23  lr 1.0e-3   812 ms'],
    [
      { columns: 40 },
      { loss: NaN, grad_norm: NaN, skipped: true, ...MORE },
      'step  3/50  loss    NaN  norm   NaN  lr 1.0e-3   812 ms  skipped',
    ],
    [{}, { loss: NaN, grad_norm: Infinity }, 'step  3/50  loss    NaN  norm Infinity  lr 1.0e-3   812 ms'],
  ])('with %j and %j', ({ columns, ...style }: Partial<StepStyle>, fields, text) => {
    expect(new EventLines({ ...STYLE, ...style }).format({ ...STEP, ...fields }, columns)).toBe(text);
  });

  it('shows the loss of the last evaluation of the first set', () => {
    const lines = new EventLines({ ...STYLE, validates: true });
    const evaluated = (set: string, loss: number): object => ({
      step: 2,
      set,
      loss,
      perplexity: 1,
      tokens: 1,
      eval_s: 1,
    });
    for (const [set, loss] of [
      ['a', 2],
      ['b', 3],
      ['a', 1.5],
      ['b', 4],
    ] as const) {
      lines.format({ type: 'evaluation', ...evaluated(set, loss) });
    }
    expect(lines.format(STEP)).toContain('  val 1.5000  ');
  });

  it('is one object in JSON, with null for what is no number', () => {
    const line = new EventLines({ ...STYLE, json: true }).format({ ...STEP, loss: NaN });
    expect(line).toBe(
      '{"schema":1,"type":"step","step":3,"loss":null,"grad_norm":1.234,"lr":0.001,"tokens":2048,"step_time_ms":812.4}',
    );
  });
});

it('shows a result as it is, with a number that is none, and not what the log says', () => {
  const lines = new EventLines({ json: false, totalSteps: 2, device: 'cpu' });
  expect(lines.format({ type: 'result', steps: 2, loss: NaN, none: null })).toBe('result  steps=2 loss=NaN none=null');
  expect(lines.format({ type: 'loss_warning', step: 2 })).toBe(null);
});

describe('a log line', () => {
  const plain = paintFor({});
  it.each([
    ['{"level":30,"time":"t","rank":0,"msg":"loaded","file":"a b","n":2}', 'loaded file=a b n=2'],
    ['{"level":40,"msg":"careful"}', 'warning: careful'],
    ['{"level":50,"msg":"bad"}', 'error: bad'],
    ['not JSON', 'not JSON'],
  ])('%s reads %s', (line, text) => {
    expect(formatLogLine(line, plain)).toBe(text);
  });

  it.each([
    [{ isTTY: true }, {}, '\x1b[33mwarning: \x1b[0mx'],
    [{ isTTY: true }, { NO_COLOR: '1' }, 'warning: x'],
    [{ isTTY: true }, { NO_COLOR: '' }, '\x1b[33mwarning: \x1b[0mx'],
    [{}, {}, 'warning: x'],
    [{}, { FORCE_COLOR: '1' }, '\x1b[33mwarning: \x1b[0mx'],
    [{ isTTY: true }, { FORCE_COLOR: '1', NO_COLOR: '1' }, 'warning: x'],
  ])('on %j with %j is %j', (stream, env, text) => {
    expect(formatLogLine('{"level":40,"msg":"x"}', paintFor(stream, env))).toBe(text);
  });
});
