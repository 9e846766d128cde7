import { localSize, type ParameterSpec, type Place } from '../../model/parameters/parameter.js';
import type { Bucket } from '../../model/parameters/bucket.js';
import { TENSOR_KINDS, tensorName, type TensorKind } from './checkpoint-format.js';
import { flatRange, type PlacedRectangle } from '../../model/parameters/rectangle.js';
import type { SafetensorsDtype } from '../files/safetensors-header.js';
import { layOutShard, type ShardLayout, type StoredPiece } from './shard-layout.js';

/** What the planner needs of a bucket; a planned one will do. */
export type BucketLayout = Pick<Bucket, 'name' | 'kind' | 'entries' | 'size' | 'shardSize' | 'replicas'>;

/** A rectangle of a parameter with its place in a flat bucket (`offset`, in elements). */
export interface BucketPiece extends PlacedRectangle {
  readonly spec: ParameterSpec;
}

/** What of a bucket's parameters lies in its elements [start, start + count); padding is left out. */
export function bucketPieces(bucket: BucketLayout, start: number, count: number): BucketPiece[] {
  return bucket.entries.flatMap(({ spec, offset }) => {
    const from = Math.max(start, offset);
    const to = Math.min(start + count, offset + localSize(spec));
    if (from >= to) return [];
    const parts = flatRange(spec, from - offset, to - from);
    return parts.map((part) => ({ ...part, spec, offset: from + part.offset }));
  });
}

/** A piece that a rank saves. */
export interface SavedPiece extends StoredPiece {
  readonly kind: TensorKind;
  /** Index of the bucket, and the piece's first element in it. */
  readonly bucket: number;
  readonly offset: number;
}

export interface SavePlanOptions {
  readonly buckets: readonly BucketLayout[];
  readonly tp: Place;
  /** Rank in the model's grid; names the files. */
  readonly rank: number;
  readonly kinds?: readonly TensorKind[];
  /** Whether there is such a tensor, of a parameter of that bucket; by default all are. */
  readonly has?: (tensor: string, kind: TensorKind, bucket: BucketLayout) => boolean;
  /** How a tensor is stored; float32 by default. */
  readonly dtypeOf?: (tensor: string) => SafetensorsDtype;
}

/**
 * What one rank writes. Over all ranks every element is written exactly once: replicas take a bucket's shards whether
 * or not its state is sharded, the first tp rank takes what all tp ranks hold, and the first stage the tied embedding.
 * Weights and moments go to files of their own.
 */
export function planSave(options: SavePlanOptions): ShardLayout<SavedPiece>[] {
  const { buckets, tp, rank, kinds = TENSOR_KINDS, has = () => true, dtypeOf = () => 'F32' } = options;
  const pieces = buckets.flatMap((bucket, index) => {
    if (bucket.kind.tied === 'copy' || (bucket.kind.tpReplicated && tp.rank !== 0)) return [];
    return bucketPieces(bucket, bucket.shardSize * bucket.replicas.rank, bucket.shardSize).map((piece) => ({
      piece,
      index,
    }));
  });
  const shard = (name: 'weights' | 'optimizer', wanted: readonly TensorKind[]): ShardLayout<SavedPiece>[] => {
    const saved = wanted.flatMap((kind) =>
      pieces.flatMap(({ piece: { spec, rows, cols, offset }, index }): SavedPiece[] => {
        const tensor = tensorName(kind, spec.name);
        if (!has(tensor, kind, buckets[index] as BucketLayout)) return [];
        const area = { rows, cols };
        return [{ kind, tensor, dtype: dtypeOf(tensor), shape: spec.globalShape, area, bucket: index, offset }];
      }),
    );
    return saved.length === 0 ? [] : [layOutShard(shardFileName(name, rank), saved)];
  };
  return [
    ...shard(
      'weights',
      kinds.filter((kind) => kind === 'weight'),
    ),
    ...shard(
      'optimizer',
      kinds.filter((kind) => kind !== 'weight'),
    ),
  ];
}

export function shardFileName(kind: 'weights' | 'optimizer' | 'extra', rank: number): string {
  return `${kind}-${String(rank).padStart(5, '0')}.safetensors`;
}
