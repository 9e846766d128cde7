/** Numbers at which an axis has a mark. */
export interface Ticks {
  /** Ascending, within the axis. */
  readonly at: readonly number[];
  /** Decimals that tell them apart; null where exponents do it better. */
  readonly decimals: number | null;
}

/** Seconds that people count in; longer ones are so many days. */
export const TIME_STEPS: readonly number[] = [
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200],
  ...Array.from({ length: 12 }, (_, i) => 86_400 * 2 ** i),
];

/** Of what is counted. */
export const WHOLE_STEPS: readonly number[] = Array.from({ length: 16 }, (_, i) =>
  [1, 2, 5].map((n) => n * 10 ** i),
).flat();

/**
 * Round numbers, about `count` of them from `low` to `high`: 1, 2 or 5 times a power of ten apart, or a step of `steps`.
 */
export function linearTicks(low: number, high: number, count: number, steps?: readonly number[]): Ticks {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return { at: [low], decimals: null };
  const power = 10 ** Math.floor(Math.log10(span / count));
  const choices = steps ?? [1, 2, 5, 10].map((factor) => factor * power);
  const step = choices.find((each) => span / each <= count) ?? choices.at(-1) ?? span;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const at = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { at, decimals: decimals > 5 || step >= 1e6 ? null : decimals };
}

/** Powers of ten, and where these are few, their doubles and fives: both ends are above zero. */
export function logTicks(low: number, high: number): Ticks {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  const within = (factors: readonly number[]): number[] =>
    powers
      .flatMap((power) => factors.map((factor) => factor * 10 ** power))
      .filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  const at = [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]].map(within).find((values) => values.length >= 3);
  return at === undefined ? linearTicks(low, high, 5) : { at, decimals: null };
}
