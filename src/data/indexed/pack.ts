/** Lists in one: list i is `items` from `starts[i]` to `starts[i + 1]`. */
export interface Packs {
  readonly starts: Uint32Array;
  readonly items: Uint32Array;
}

/**
 * Puts pieces together into packs of at most `room`: the longest first, each where it leaves the least room (best-fit
 * decreasing), the earlier first where several are as long. A function of the lengths alone.
 * @param lengths 1 to `room` each
 */
export function pack(lengths: ArrayLike<number>, room: number): Packs {
  const packs: number[][] = [];
  /** Packs by the room that is left in them. */
  const byRoom: number[][] = Array.from({ length: room + 1 }, () => []);
  const fullest = new FilledRooms(room);
  for (const piece of longestFirst(lengths, room)) {
    const length = lengths[piece] as number;
    const found = fullest.atLeast(length);
    const waiting = found === undefined ? undefined : byRoom[found];
    const number = waiting?.pop() ?? packs.push([]) - 1;
    if (found !== undefined && waiting?.length === 0) fullest.remove(found);
    (packs[number] as number[]).push(piece);
    const left = (found ?? room) - length;
    (byRoom[left] as number[]).push(number);
    fullest.add(left);
  }
  const starts = new Uint32Array(packs.length + 1);
  packs.forEach((pieces, i) => (starts[i + 1] = (starts[i] as number) + pieces.length));
  return { starts, items: Uint32Array.from(packs.flat()) };
}

/** By counting: in the order of the pieces where they are as long. */
function longestFirst(lengths: ArrayLike<number>, longest: number): Uint32Array {
  const at = new Uint32Array(longest + 2);
  for (let i = 0; i < lengths.length; i++) at[longest - (lengths[i] as number) + 1]! += 1;
  for (let i = 1; i < at.length; i++) at[i]! += at[i - 1]!;
  const order = new Uint32Array(lengths.length);
  for (let i = 0; i < lengths.length; i++) order[at[longest - (lengths[i] as number)]!++] = i;
  return order;
}

/** A set of numbers up to `most`, and its least above another: a bit each. */
class FilledRooms {
  readonly #words: Uint32Array;

  constructor(most: number) {
    this.#words = new Uint32Array((most >>> 5) + 1);
  }

  add(room: number): void {
    this.#words[room >>> 5]! |= 1 << (room & 31);
  }

  remove(room: number): void {
    this.#words[room >>> 5]! &= ~(1 << (room & 31));
  }

  atLeast(room: number): number | undefined {
    let word = room >>> 5;
    let bits = this.#words[word]! & (-1 << (room & 31));
    while (bits === 0 && ++word < this.#words.length) bits = this.#words[word]!;
    return bits === 0 ? undefined : word * 32 + (31 - Math.clz32(bits & -bits));
  }
}
