/** Cuts a list into runs of at most `limit` bytes; one that is larger stands alone. */
export function groupBySize<T>(items: readonly T[], bytesOf: (item: T) => number, limit: number): T[][] {
  const groups: T[][] = [];
  let filled = Infinity;
  for (const item of items) {
    const bytes = bytesOf(item);
    if (filled + bytes > limit) {
      groups.push([]);
      filled = 0;
    }
    groups.at(-1)?.push(item);
    filled += bytes;
  }
  return groups;
}
