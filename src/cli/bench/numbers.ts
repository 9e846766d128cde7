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

/** `12.1-12.9`: from the fastest sample to the slowest. */
export function rangeText({ min, max }: { readonly min: number; readonly max: number }): string {
  return `${round(min)}-${round(max)}`;
}

/** Bytes as `64 KiB`. */
export function sizeText(bytes: number): string {
  const unit = bytes >= 2 ** 30 ? 30 : bytes >= 2 ** 20 ? 20 : 10;
  return `${round(bytes / 2 ** unit)} ${{ 10: 'KiB', 20: 'MiB', 30: 'GiB' }[unit]}`;
}
