import { expect } from 'vitest';

/** What a rank holds of a gradient, as a worker writes it down. */
export interface GradientSlice {
  readonly name: string;
  readonly globalShape: readonly number[];
  readonly rows: { readonly start: number; readonly count: number };
  readonly cols: { readonly start: number; readonly count: number };
  readonly owner: boolean;
  readonly values: readonly number[];
}

/** What a worker writes down of a backward: of each rank, its slices, and the step's totals. */
export interface BackwardDump {
  readonly slices: readonly GradientSlice[];
  readonly totals: Record<string, number>;
}

/** What torch made of a loss: its sum, its divisor, and of every gradient what {@link summary} gives. */
export interface LossOracle {
  readonly loss: number;
  readonly divisor: number;
  readonly grads: Readonly<Record<string, number[]>>;
}

/** The whole model's gradients, of one replica: they are reduced. */
export function gradientsOf(dumps: readonly BackwardDump[]): Map<string, Float64Array> {
  const whole = new Map<string, Float64Array>();
  for (const { name, globalShape, rows, cols, owner, values } of dumps.flatMap(({ slices }) => slices)) {
    if (!owner) continue;
    const width = globalShape.at(-1)!;
    const size = globalShape.reduce((a, b) => a * b, 1);
    const to = whole.get(name) ?? whole.set(name, new Float64Array(size)).get(name)!;
    for (let r = 0; r < rows.count; r++) {
      to.set(values.slice(r * cols.count, (r + 1) * cols.count), (rows.start + r) * width + cols.start);
    }
  }
  return whole;
}

/** Norm, and projections on four fixed vectors, as the oracles have them. */
export function summary(gradient: Float64Array): number[] {
  const dot = (of: (i: number) => number): number => gradient.reduce((sum, g, i) => sum + g * of(i), 0);
  const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g ** 2, 0));
  return [norm, ...[0, 1, 2, 3].map((k) => dot((i) => Math.cos((k + 1) * i + k)))];
}

/** Fails unless loss, divisor and every gradient are torch's within 5e-6. */
export function expectGradients(dumps: readonly BackwardDump[], name: string, oracle: LossOracle): void {
  const { loss, divisor, grads } = oracle;
  const { totals } = dumps[0]!;
  // Of the mean: terms of both signs cancel in the sum, whose own size says nothing of their errors.
  expect(Math.abs(totals['loss']! - loss) / divisor, `${name}: loss`).toBeLessThan(5e-6);
  expect(totals['tokens'], `${name}: divisor`).toBe(divisor);
  const found = gradientsOf(dumps);
  expect([...found.keys()].sort()).toEqual(Object.keys(grads).sort());
  for (const [parameter, expected] of Object.entries(grads)) {
    // An error of that norm, in no special direction, has projections of its size / sqrt 2 on these vectors.
    summary(found.get(parameter)!).forEach((value, i) => {
      expect(Math.abs(value - expected[i]!), `${name} ${parameter} ${i}`).toBeLessThan(5e-6 * expected[0]!);
    });
  }
}
