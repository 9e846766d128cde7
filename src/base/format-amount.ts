/** `36.8 MiB`, `1.5 GiB`: bytes in the largest unit of which there is one. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  return `${(bytes / 2 ** (10 * power)).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** `812`, `51.2k`, `1.05M`, `2.10B`: a count in three digits. */
export function formatCount(count: number): string {
  const units = ['', 'k', 'M', 'B', 'T'];
  let [value, power] = [count, 0];
  while (value >= 999.5 && power < units.length - 1) [value, power] = [value / 1000, power + 1];
  return `${power === 0 ? Math.round(value) : value.toPrecision(3)}${units[power]}`;
}

/** `0:07`, `12:34`, `1:02:33`, `3d 04:05:06`: minutes and seconds, hours and days where there are any. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-';
  const two = (n: number): string => String(n).padStart(2, '0');
  const whole = Math.round(Math.max(0, seconds));
  const [days, hours, minutes] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  const rest = `${two(minutes)}:${two(whole % 60)}`;
  if (days > 0) return `${days}d ${two(hours)}:${rest}`;
  return hours > 0 ? `${hours}:${rest}` : rest.replace(/^0(?=\d)/, '');
}

/** `0.4 s` of times that a reader compares, minutes and more as {@link formatDuration}. */
export function formatSeconds(seconds: number): string {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : formatDuration(seconds);
}
