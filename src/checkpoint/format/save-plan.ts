import { bucketPieces, type BucketLayout } from '../../model/parameters/bucket-pieces.js';
import type { Place } from '../../model/parameters/parameter.js';
import { TENSOR_KINDS, tensorName, type TensorKind } from './checkpoint-format.js';
import type { SafetensorsDtype } from '../files/safetensors-header.js';
import { layOutShard, type ShardLayout, type StoredPiece } from './shard-layout.js';

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
  readonly dtypeOf?: (tensor: string, kind: TensorKind) => SafetensorsDtype;
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
        return [{ kind, tensor, dtype: dtypeOf(tensor, kind), shape: spec.globalShape, area, bucket: index, offset }];
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
