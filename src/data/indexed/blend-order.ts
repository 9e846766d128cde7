/** Which source a sample of a blend comes from, and which of its samples it is. */
export interface BlendPlace {
  readonly source: number;
  /** Samples of that source before this one. */
  readonly index: number;
}

type Node = { readonly source: number } | { readonly left: Node; readonly right: Node; readonly part: number };

/**
 * The order of the sources of a blend, as a function of the place: nothing is counted, so any place can be gone to at
 * once. Weights are halved again and again, the two lightest joined first; of the first n samples of a pair its left
 * side has round(n * part). With two sources each is within half a sample of its share at every place.
 */
export class BlendOrder {
  readonly #root: Node;

  /** @param weights positive, of any sum */
  constructor(weights: readonly number[]) {
    const heap: { node: Node; weight: number }[] = weights.map((weight, source) => ({ node: { source }, weight }));
    while (heap.length > 1) {
      heap.sort((a, b) => b.weight - a.weight);
      const [light, heavy] = [heap.pop(), heap.pop()] as { node: Node; weight: number }[];
      const weight = (light as { weight: number }).weight + (heavy as { weight: number }).weight;
      heap.push({ weight, node: pair(heavy, light, weight) });
    }
    this.#root = (heap[0] as { node: Node }).node;
  }

  /** Place `n` (from 0) of the blend. Takes as many steps as the tree is high. */
  at(n: number): BlendPlace {
    let node = this.#root;
    let index = n;
    while ('part' in node) {
      const left = ofLeft(node.part, index);
      const isLeft = ofLeft(node.part, index + 1) > left;
      node = isLeft ? node.left : node.right;
      index = isLeft ? left : index - left;
    }
    return { source: node.source, index };
  }

  /** How many of the first `n` samples come from each source. */
  counts(n: number): number[] {
    const counts: number[] = [];
    const visit = (node: Node, count: number): void => {
      if ('part' in node) {
        const left = ofLeft(node.part, count);
        visit(node.left, left);
        visit(node.right, count - left);
      } else counts[node.source] = count;
    };
    visit(this.#root, n);
    return counts;
  }
}

type Weighted = { readonly node: Node; readonly weight: number } | undefined;

function pair(heavy: Weighted, light: Weighted, weight: number): Node {
  const left = heavy as NonNullable<Weighted>;
  return { left: left.node, right: (light as NonNullable<Weighted>).node, part: left.weight / weight };
}

function ofLeft(part: number, n: number): number {
  return Math.floor(part * n + 0.5);
}
