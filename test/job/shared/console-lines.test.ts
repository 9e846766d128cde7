import { describe, expect, it } from 'vitest';
import { formatEvent, formatLogLine, paintFor } from '../../../src/job/shared/console-lines.js';

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
  it.each([
    ['cpu', {}, 'step    3/50  loss 5.1234  grad_norm 1.23  lr 1.0e-3  812 ms'],
    [
      'cpu',
      { tokens_per_s_per_gpu: 2521.9, tflops_per_gpu: 0.01, mfu: 0 },
      'step    3/50  loss 5.1234  grad_norm 1.23  lr 1.0e-3  812 ms  2,522 tokens/s/rank',
    ],
    [
      'cuda',
      { tokens_per_s_per_gpu: 19600, tflops_per_gpu: 545.02, mfu: 0.5511 },
      'step    3/50  loss 5.1234  grad_norm 1.23  lr 1.0e-3  812 ms  19,600 tokens/s/GPU  545.0 TFLOP/s/GPU  MFU 55.1 %',
    ],
    [
      'cpu',
      { grad_norm: 0.00012, step_time_ms: 3.14159, lr: 0 },
      'step    3/50  loss 5.1234  grad_norm 1.20e-4  lr 0.0e+0  3.1 ms',
    ],
    [
      'cpu',
      { loss: NaN, grad_norm: NaN, skipped: true },
      'step    3/50  loss NaN  grad_norm NaN  lr 1.0e-3  812 ms  skipped',
    ],
    ['cpu', { loss: NaN, grad_norm: Infinity }, 'step    3/50  loss NaN  grad_norm Infinity  lr 1.0e-3  812 ms'],
  ] as const)('on %s with %j', (device, fields, text) => {
    expect(formatEvent({ ...STEP, ...fields }, { json: false, totalSteps: 50, device })).toBe(text);
  });

  it('is one object in JSON, with null for what is no number', () => {
    const line = formatEvent({ ...STEP, loss: NaN }, { json: true, totalSteps: 50, device: 'cpu' });
    expect(line).toBe(
      '{"type":"step","step":3,"loss":null,"grad_norm":1.234,"lr":0.001,"tokens":2048,"step_time_ms":812.4}',
    );
  });
});

it('shows a result as it is, with a number that is none', () => {
  const event = { type: 'result', steps: 2, loss: NaN, none: null };
  expect(formatEvent(event, { json: false, totalSteps: 2, device: 'cpu' })).toBe('result  steps=2 loss=NaN none=null');
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
  ])('on %j with %j is %j', (stream, env, text) => {
    expect(formatLogLine('{"level":40,"msg":"x"}', paintFor(stream, env))).toBe(text);
  });
});
