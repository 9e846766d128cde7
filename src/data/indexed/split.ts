/** Parts of the documents of a dataset. */
const SPLITS = ['train', 'validation', 'test'] as const;
export type Split = (typeof SPLITS)[number];

/** `969,30,1`, as a checked configuration has it, as parts of the whole in the order of {@link SPLITS}. */
export function parseSplit(text: string): number[] {
  const parts = text.split(',').map(Number);
  const sum = parts.reduce((total, part) => total + part, 0);
  return SPLITS.map((_, i) => (parts[i] ?? 0) / sum);
}

/**
 * The documents from..to-1 of a split, cut as Megatron cuts them: the splits follow one another, each end is the rounded
 * part of all. Every document is in one split.
 */
export function splitRange(parts: readonly number[], documents: number, split: Split): { from: number; to: number } {
  const index = SPLITS.indexOf(split);
  const endOf = (count: number): number =>
    count === SPLITS.length
      ? documents
      : roundHalfToEven(parts.slice(0, count).reduce((sum, part) => sum + part, 0) * documents);
  return { from: Math.min(documents, endOf(index)), to: Math.min(documents, endOf(index + 1)) };
}

/** As Python rounds. */
function roundHalfToEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 === 1 ? rounded - 1 : rounded;
}
