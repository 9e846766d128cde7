/** Three significant digits, or all that stand before the point. */
export function round(value: number): number {
  if (!Number.isFinite(value) || value === 0) return value;
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return Number(value.toFixed(Math.min(6, digits)));
}

/** With one digit after the point. */
export function percent(part: number, whole: number): number {
  return Number(((100 * part) / whole).toFixed(1));
}

/** Columns of a time: the median, the fastest sample and the slowest. */
export function timeOf(
  { median, min, max }: { readonly median: number; readonly min: number; readonly max: number },
  name = 'time',
): Record<string, number> {
  return { [`${name}_ms`]: round(median), min_ms: round(min), max_ms: round(max) };
}
