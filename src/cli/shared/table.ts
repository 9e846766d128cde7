/** Rows as aligned text: the first row is the head; columns of numbers stand to the right. */
export function formatTable(rows: readonly (readonly (string | number)[])[]): string {
  const texts = rows.map((row) => row.map((cell) => (typeof cell === 'number' ? cell.toLocaleString('en-US') : cell)));
  const columns = largest(texts.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, i) => largest(texts.map((row) => row[i]?.length ?? 0)));
  const numeric = widths.map((_, i) => rows.slice(1).every((row) => typeof row[i] === 'number'));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (numeric[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  return `${texts.map(line).join('\n')}\n`;
}

/** Of numbers that are not negative, 0 of none. Math.max takes no hundred thousand arguments. */
export function largest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}
