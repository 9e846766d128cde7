import { describe, expect, test } from 'vitest';
import { RunData } from '../../src/trace/view/run-data.js';
import { smooth } from '../../src/trace/view/smooth.js';
import { thin } from '../../src/trace/view/thin.js';
import { TIME_STEPS, WHOLE_STEPS, linearTicks, logTicks } from '../../src/trace/view/ticks.js';
import { readTraceLine, type StepPoint, type TraceFile } from '../../src/trace/view/trace-event.js';

describe('a line of a run', () => {
  test.each<[TraceFile, string, unknown]>([
    ['metrics', '{"type":"step","step":3,"loss":null,"lr":"1","x":5}', { type: 'step', step: 3, loss: null, lr: null }],
    ['metrics', '{"type":"evaluation","step":0,"set":7,"loss":2}', { type: 'evaluation', step: 0, set: '', loss: 2 }],
    ['metrics', '{"type":"mine","step":3}', null],
    ['metrics', '{"type":"step","step":"3"}', null],
    ['metrics', '{"type":"step","st', null],
    ['metrics', 'null', null],
    ['samples', '{"step":3,"prompt":["a"],"text":"b"}', { type: 'sample', step: 3, prompt: '', text: 'b' }],
    ['ranks', '{"step":3,"ms":[1,2],"stages":[0]}', { type: 'ranks', step: 3, ms: [1, 2] }],
    ['ranks', '{"step":3,"ms":[1,"2"]}', null],
    [
      'ranks',
      '{"type":"straggler","step":3,"ranks":[{"rank":1,"ms":2,"median_ms":1}]}',
      { type: 'straggler', step: 3, ranks: [{ rank: 1, ms: 2, median_ms: 1 }] },
    ],
    ['ranks', '{"type":"straggler","step":3,"ranks":[null]}', { type: 'straggler', step: 3, ranks: [] }],
  ])('of %s, %s', (file, line, told) => {
    expect(readTraceLine(file, line)).toEqual(told);
  });
});

describe('the curves of a run', () => {
  const started = '2026-11-28T10:00:00.000Z';
  const at = (step: number, loss: number | null, seconds: number): StepPoint => {
    return { type: 'step', step, loss, time: Date.parse(started) + 1000 * seconds };
  };

  test('have what was run again once, in its order, gaps as gaps', () => {
    const data = new RunData({ started, tokensPerUpdate: 100 });
    data.add([at(1, 5, 1), at(2, 4, 2), at(3, 9, 3), at(4, 9, 4)]);
    data.add([at(3, null, 13), at(4, 3, 14)]);
    expect(data.curves('loss', 'step')).toEqual([{ name: '', x: [1, 2, 3, 4], y: [5, 4, null, 3] }]);
    expect(data.curves('loss', 'time')).toEqual([{ name: '', x: [1, 2, 13, 14], y: [5, 4, null, 3] }]);
    expect(data.curves('mfu', 'step')).toEqual([]);
    data.add([{ type: 'evaluation', step: 2, set: 'a', loss: 6 }]);
    // An evaluation has no time of its own: that of its update.
    expect(data.curves('validation', 'time')).toEqual([{ name: '', x: [2], y: [6] }]);
    data.add([{ type: 'evaluation', step: 4, set: 'b', loss: 7 }]);
    expect(data.curves('validation', 'tokens').map(({ name, x }) => [name, x])).toEqual([
      ['a', [200]],
      ['b', [400]],
    ]);
    data.reset('metrics');
    expect([data.steps, data.curves('validation', 'step')]).toEqual([[], []]);
  });

  test('are thinned without losing a jump, the ends, or what is no update', () => {
    const steps = Array.from({ length: 10_000 }, (_, i) => at(i + 1, i === 4321 ? 50 : 3, i));
    const evaluation = { type: 'evaluation', step: 5, set: 'a', loss: 1 } as const;
    const { events, from } = thin([...steps, evaluation], 500);
    expect(from).toBe(10_000);
    expect(events.length).toBeLessThanOrEqual(510);
    expect(events).toEqual(expect.arrayContaining([steps[0], steps[4321], steps[9999], evaluation]));
    expect(thin(steps, 10_000)).toEqual({ events: steps, from: null });
  });

  test('are smoothed without a pull of their start', () => {
    expect(smooth([3, 3, null, 3], 0.9)).toEqual([3, 3, null, 3].map((v) => (v === null ? v : expect.closeTo(v, 12))));
    expect(smooth([1, 2, 4], 0)).toEqual([1, 2, 4]);
    // (0.5 * 1 + 0.25 * 0) / 0.75
    expect(smooth([0, 1], 0.5)[1]).toBeCloseTo(2 / 3, 12);
  });
});

test.each([
  [0, 10, 5, undefined, [0, 2, 4, 6, 8, 10]],
  [1, 150, 4, WHOLE_STEPS, [50, 100, 150]],
  [1, 3, 7, WHOLE_STEPS, [1, 2, 3]],
  [0, 5400, 4, TIME_STEPS, [0, 1800, 3600, 5400]],
  [2.13, 2.19, 4, undefined, [2.14, 2.16, 2.18]],
  [7, 7, 4, undefined, [7]],
])('an axis from %d to %d has round marks', (low, high, count, steps, at) => {
  expect(linearTicks(low, high, count, steps).at).toEqual(at.map((value) => expect.closeTo(value, 9)));
});

test.each([
  [1e-5, 1e-2, [1e-5, 1e-4, 1e-3, 1e-2]],
  [2, 50, [2, 5, 10, 20, 50]],
  [2, 5.5, [2, 3, 4, 5]],
  [4.1, 4.4, [4.1, 4.2, 4.3, 4.4]],
])('a logarithmic axis from %d to %d too', (low, high, at) => {
  expect(logTicks(low, high).at).toEqual(at.map((value) => expect.closeTo(value, 9)));
});
