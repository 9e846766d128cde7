import { largest } from './table.js';

interface Unit {
  readonly name: string;
  readonly size: number;
}

export const MEMORY_UNITS: readonly Unit[] = [
  { name: 'GiB', size: 2 ** 30 },
  { name: 'MiB', size: 2 ** 20 },
];
export const WORK_UNITS: readonly Unit[] = [
  { name: 'TFLOP', size: 1e12 },
  { name: 'GFLOP', size: 1e9 },
];

/** The largest unit of which the largest value has at least one, and values in it with two digits after the point. */
export function inUnit(
  values: readonly number[],
  units: readonly Unit[],
): { name: string; of: (value: number) => number } {
  const most = largest(values);
  const { name, size } = units.find((unit) => most >= unit.size) ?? (units.at(-1) as Unit);
  return { name, of: (value) => Number((value / size).toFixed(2)) };
}
