import { elementCount } from '../base/element-count.js';
import { DTYPES, type DType } from './dtype.js';

/** Rows that lie `stride` elements apart, each `width` long: columns of a matrix, or a matrix itself. */
export interface Strided {
  /** From the first element to the last. */
  readonly data: Tensor;
  readonly rows: number;
  readonly width: number;
  readonly stride: number;
}

/** Where tensors lie: a part of an arena, neither of which is known before the plan is committed. */
export interface TensorMemory {
  /** Native handle of the arena; -1 before. */
  readonly arena: number;
  /** Bytes from the arena's start. */
  readonly base: number;
}

/** A typed view of planned memory: contiguous, row-major. It owns nothing. */
export class Tensor {
  readonly region: TensorMemory;
  /** Bytes from the region's base. */
  readonly localOffset: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly size: number;
  readonly bytes: number;

  constructor(region: TensorMemory, localOffset: number, shape: readonly number[], dtype: DType) {
    this.region = region;
    this.localOffset = localOffset;
    this.shape = shape;
    this.dtype = dtype;
    this.size = elementCount(shape);
    this.bytes = this.size * DTYPES[dtype].bytes;
  }

  /** Native arena handle; -1 before the plan is committed, which every native call refuses. */
  get arena(): number {
    return this.region.arena;
  }

  get offset(): number {
    return this.region.base + this.localOffset;
  }

  /** The same memory with another shape of the same size. */
  view(...shape: number[]): Tensor {
    if (elementCount(shape) !== this.size) throw new RangeError(`view [${shape}] of a tensor of [${this.shape}]`);
    return new Tensor(this.region, this.localOffset, shape, this.dtype);
  }

  /** `count` elements from `start`, flat or with `shape`. */
  slice(start: number, count: number, shape: readonly number[] = [count]): Tensor {
    if (start < 0 || count < 0 || start + count > this.size || elementCount(shape) !== count) {
      throw new RangeError(`slice ${start}+${count} as [${shape}] of a tensor of [${this.shape}]`);
    }
    return new Tensor(this.region, this.localOffset + start * DTYPES[this.dtype].bytes, shape, this.dtype);
  }

  /** Columns [start, start + count) of the last dimension, all of them by default; rows are all dimensions before it. */
  columns(start = 0, count = (this.shape.at(-1) ?? 1) - start): Strided {
    const stride = this.shape.at(-1) ?? 1;
    const rows = this.size / stride;
    if (start < 0 || count < 0 || start + count > stride) {
      throw new RangeError(`columns ${start}+${count} of a tensor of [${this.shape}]`);
    }
    const size = rows === 0 || count === 0 ? 0 : (rows - 1) * stride + count;
    return { data: this.slice(size === 0 ? 0 : start, size), rows, width: count, stride };
  }

  /** Rows [start, start + count) of the first dimension. */
  rows(start: number, count: number): Tensor {
    const stride = this.size / (this.shape[0] ?? 1);
    return this.slice(start * stride, count * stride, [count, ...this.shape.slice(1)]);
  }
}

/** All columns of a matrix, or those that are given; of a tensor of more dimensions, the rows are those of its last. */
export function columnsOf(matrix: Tensor | Strided): Strided {
  return 'data' in matrix ? matrix : matrix.columns();
}
