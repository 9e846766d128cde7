import type { Tensor } from '../../engine/tensor.js';

/** A contiguous part of one dimension of a global tensor. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

/**
 * What new weights begin with: normal deviates of the model's standard deviation, or of 1 / sqrt(3 inputs), as wide as
 * Kaiming's uniform ones that torch's Linear begins with; ones or zeros.
 */
export type ParameterInit = 'normal' | 'kaiming' | 'one' | 'zero';

/**
 * A parameter as one rank holds it: named as Hugging Face names it, with the slice of the global tensor that is here.
 * A norm's weight or a bias is a matrix of one row.
 */
export interface ParameterSpec {
  readonly name: string;
  readonly globalShape: readonly number[];
  /** Dimension that is sharded over tp, or null where every tp rank holds the whole. */
  readonly shardDim: 0 | 1 | null;
  readonly rows: Range;
  readonly cols: Range;
  readonly init: ParameterInit;
  /** Elements set aside for it, the same on every tp rank: more than it has where tp does not divide the vocabulary. */
  readonly room: number;
}

/** What a module computes with: one parameter, or several that lie together so that one gemm covers them. */
export class Weight {
  readonly specs: readonly ParameterSpec[];
  readonly data: Tensor;
  /** float32 main gradient; null for a frozen parameter. */
  grad: Tensor | null;
  #touched = false;

  constructor(specs: readonly ParameterSpec[], data: Tensor, grad: Tensor | null) {
    this.specs = specs;
    this.data = data;
    this.grad = grad;
  }

  /**
   * To be called by whoever adds a contribution to the gradient, just before: the first since `reset` overwrites.
   * @returns whether the contribution must be added to what is there
   */
  claim(): boolean {
    const before = this.#touched;
    this.#touched = true;
    return before;
  }

  /** The next contribution overwrites the gradient: no memset is needed. */
  reset(): void {
    this.#touched = false;
  }
}

/** A rank's part of `n`: as equal as can be where the ranks do not divide it, and never more than n / size rounded up. */
export function partOf(n: number, { size, rank }: Place): Range {
  const start = Math.floor((n * rank) / size);
  return { start, count: Math.floor((n * (rank + 1)) / size) - start };
}

export function matrix(name: string, globalShape: [number, number], shardDim: 0 | 1 | null, tp: Place): ParameterSpec {
  const [rows, cols] = globalShape;
  const most = (n: number, dim: 0 | 1): number => (shardDim === dim ? Math.ceil(n / tp.size) : n);
  return {
    name,
    globalShape,
    shardDim,
    rows: shardDim === 0 ? partOf(rows, tp) : whole(rows),
    cols: shardDim === 1 ? partOf(cols, tp) : whole(cols),
    init: 'normal',
    room: most(rows, 0) * most(cols, 1),
  };
}

/** The weight of a norm, which every tp rank holds whole. */
export function normWeight(name: string, length: number): ParameterSpec {
  const shape = { globalShape: [length], shardDim: null, rows: whole(1), cols: whole(length) };
  return { name, ...shape, init: 'one', room: length };
}

/** The bias of a product whose outputs are cut over tp. */
export function biasVector(name: string, length: number, tp: Place): ParameterSpec {
  const shape = { globalShape: [length], shardDim: 1 as const, rows: whole(1), cols: partOf(length, tp) };
  return { name, ...shape, init: 'zero', room: Math.ceil(length / tp.size) };
}

function whole(count: number): Range {
  return { start: 0, count };
}

export function localSize(spec: ParameterSpec): number {
  return spec.rows.count * spec.cols.count;
}

/** A rank's position along one dimension of the grid. */
export interface Place {
  readonly size: number;
  readonly rank: number;
}
