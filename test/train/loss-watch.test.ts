import { expect, test } from 'vitest';
import { LossWatch } from '../../src/train/loss-watch.js';

/** The warnings of a run with these losses, of a byte model. */
function warnings(losses: readonly number[]): string[] {
  const watch = new LossWatch(256);
  return losses.flatMap((loss, i) => {
    const found = watch.note({ step: i + 1, loss, tokens: 1 });
    return found === null ? [] : [`${found.step} ${found.kind}`];
  });
}

/** Falls from `from` with some noise, the same each time. */
function falling(from: number, updates: number): number[] {
  return Array.from({ length: updates }, (_, i) => from / (1 + i / 40) + 0.1 * Math.sin(i * 12.9898));
}

test.each([
  ['a run that learns', falling(5.55, 200), []],
  ['a first loss a little above ln 256', [5.7, 5.6, 5.5, 5.3, 5.2], []],
  ['one jump', [...falling(5.5, 100), 6, ...falling(1.6, 50)], ['101 spike']],
  ['a jump before there is a usual loss', [5.5, 5.1, 4.8, 5.9, 4.5], []],
  ['jumps in a row, once', [...falling(5.5, 60), 4.4, 4.5, 4.6, 4.7], ['61 spike']],
  ['jumps that are far apart', [...falling(5.5, 60), 5, ...falling(2.2, 60), 5], ['61 spike', '122 spike']],
  ['a learning rate that is far too high', [5.5, 36, 71, 300, 636], ['2 above_guessing']],
  [
    'a model that stays above guessing',
    Array.from({ length: 90 }, () => 5.8),
    ['20 above_guessing', '70 above_guessing'],
  ],
  ['losses that are no numbers, or of no token', [5.5, NaN, Infinity, 5.4], []],
])('%s', (_, losses, expected) => {
  expect(warnings(losses)).toEqual(expected);
});

test('the warning says what was found and what to do', () => {
  const watch = new LossWatch(256);
  expect(watch.note({ step: 1, loss: 36, tokens: 1 })?.text).toMatch(
    /^the loss at update 1 is 36.0000, above ln\(vocab.* 5.5452.*lower optimizer.lr/,
  );
  expect(watch.note({ step: 2, loss: 999, tokens: 0 })).toBe(null);
});
