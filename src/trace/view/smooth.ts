/**
 * An exponential moving average without the pull of its start (as TensorBoard's): each value is the mean of those up to
 * it, weighted by `weight` to the power of their distance. A gap stays a gap.
 * @param weight from 0, which changes nothing, to below 1
 */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  let [sum, weights] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    weights = weights * weight + (1 - weight);
    return sum / weights;
  });
}
