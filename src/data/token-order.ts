const DIGIT_BITS = 11;
const DIGITS = 1 << DIGIT_BITS;

/**
 * Makes a function that writes to `order` (i32 [n]) the stable sort of 0..n-1 by token id: what the embedding's backward
 * needs to sum each row in one fixed order. Radix sort with preallocated scratch, n and vocabulary fixed.
 */
export function tokenSorter(n: number, vocabSize: number): (tokens: Int32Array, order: Int32Array) => void {
  const bits = Math.max(1, 32 - Math.clz32(vocabSize - 1));
  const passes = Math.ceil(bits / DIGIT_BITS);
  const counts = new Int32Array(DIGITS);
  const scratch = new Int32Array(n);

  const pass = (tokens: Int32Array, from: Int32Array | undefined, to: Int32Array, shift: number): void => {
    counts.fill(0);
    for (let i = 0; i < n; i++) counts[((tokens[i] as number) >>> shift) & (DIGITS - 1)]!++;
    let before = 0;
    for (let digit = 0; digit < DIGITS; digit++) {
      const count = counts[digit] as number;
      counts[digit] = before;
      before += count;
    }
    for (let i = 0; i < n; i++) {
      const item = from === undefined ? i : (from[i] as number);
      const digit = ((tokens[item] as number) >>> shift) & (DIGITS - 1);
      to[counts[digit]!++] = item;
    }
  };

  return (tokens, order) => {
    // Buffers alternate so that the last pass writes to `order`.
    let from: Int32Array | undefined;
    for (let p = 0; p < passes; p++) {
      const to = (passes - 1 - p) % 2 === 0 ? order : scratch;
      pass(tokens, from, to, p * DIGIT_BITS);
      from = to;
    }
  };
}
