/** Sums of a row's terms from each token on, what is further away counting `decay` times less for each token between. */
export function sumsToCome(terms: ArrayLike<number>, decay: number): Float32Array {
  const sums = Float32Array.from(terms);
  for (let t = sums.length - 2; t >= 0; t--) sums[t]! += decay * sums[t + 1]!;
  return sums;
}

/**
 * Generalised advantage estimation (Schulman et al., 2016) of an answer, undiscounted: what each token's reward and the value
 * after it exceed the value before it by, in sums that decay with `lambda`.
 */
export function advantagesOf(rewards: Float32Array, values: Float32Array, lambda: number): Float32Array {
  const surprises = rewards.map((reward, t) => reward + (values[t + 1] ?? 0) - values[t]!);
  return sumsToCome(surprises, lambda);
}

export function meanOf(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

export function varianceOf(values: readonly number[]): number {
  const mean = meanOf(values);
  return meanOf(values.map((x) => (x - mean) ** 2));
}

/** 1 where values are what came, 0 where they are no better than the mean of what came. */
export function explainedVariance(values: readonly number[], came: readonly number[]): number {
  return 1 - varianceOf(came.map((x, i) => x - values[i]!)) / varianceOf(came);
}
