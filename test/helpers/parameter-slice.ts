import type { ParameterSlice } from '../../src/model/stage/distributed-model.js';

/** What of a whole parameter a rank holds as `slice`. */
export function within(whole: ParameterSlice, { rows, cols }: ParameterSlice): number[] {
  return Array.from({ length: rows.count }, (_, row) => {
    const at = (rows.start + row) * whole.cols.count + cols.start;
    return [...whole.values.subarray(at, at + cols.count)];
  }).flat();
}
