import type { Tensor } from '../../engine/tensor.js';

/** A contiguous part of one dimension of a global tensor. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

/**
 * A parameter as one rank holds it: named as Hugging Face names it, with the slice of the global tensor that is here.
 * A norm's weight is a matrix of one row.
 */
export interface ParameterSpec {
  readonly name: string;
  readonly globalShape: readonly number[];
  /** Dimension that is sharded over tp, or null where every tp rank holds the whole. */
  readonly shardDim: 0 | 1 | null;
  readonly rows: Range;
  readonly cols: Range;
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

  /** Whether a gradient must be added to what is there; false for the first contribution since `reset`. */
  accumulates(): boolean {
    const before = this.#touched;
    this.#touched = true;
    return before;
  }

  /** The next contribution overwrites the gradient: no memset is needed. */
  reset(): void {
    this.#touched = false;
  }
}

export function matrix(name: string, globalShape: [number, number], shardDim: 0 | 1 | null, tp: Place): ParameterSpec {
  const whole = (n: number): Range => ({ start: 0, count: n });
  const part = (n: number): Range => ({ start: (n / tp.size) * tp.rank, count: n / tp.size });
  const [rows, cols] = globalShape;
  return {
    name,
    globalShape,
    shardDim,
    rows: shardDim === 0 ? part(rows) : whole(rows),
    cols: shardDim === 1 ? part(cols) : whole(cols),
  };
}

export function vector(name: string, length: number): ParameterSpec {
  return {
    name,
    globalShape: [length],
    shardDim: null,
    rows: { start: 0, count: 1 },
    cols: { start: 0, count: length },
  };
}

export function localSize(spec: ParameterSpec): number {
  return spec.rows.count * spec.cols.count;
}

/** A rank's position along one dimension of the grid. */
export interface Place {
  readonly size: number;
  readonly rank: number;
}
