import { localSize, type ParameterSpec, type Place } from '../model/parameter.js';
import type { Bucket } from '../optim/parameter-buffer.js';
import { tensorName, pieceName, pieceShape, TENSOR_KINDS, type TensorKind } from './checkpoint-format.js';
import { areaOf, flatRange, type PlacedRectangle, type Rectangle } from './rectangle.js';
import { layOut, type TensorSpec } from './safetensors-header.js';

/** What the planner needs of a bucket; a planned one will do. */
export type BucketLayout = Pick<Bucket, 'name' | 'kind' | 'entries' | 'size' | 'shardSize'>;

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
export interface SavedPiece {
  readonly kind: TensorKind;
  readonly parameter: string;
  readonly shape: readonly number[];
  readonly area: Rectangle;
  /** Index of the bucket, and the piece's first element in it. */
  readonly bucket: number;
  readonly offset: number;
}

/** A shard file that a rank writes: what is in it, and the first byte of each piece. */
export interface ShardPlan {
  readonly file: string;
  readonly head: Uint8Array;
  readonly bytes: number;
  readonly pieces: readonly (SavedPiece & { readonly position: number; readonly bytes: number })[];
}

export interface SavePlanOptions {
  readonly buckets: readonly BucketLayout[];
  readonly dpCp: Place;
  readonly tp: Place;
  /** Rank in the model's grid; names the files. */
  readonly rank: number;
  readonly kinds?: readonly TensorKind[];
}

/**
 * What one rank writes. Over all ranks every element is written exactly once: replicas take a bucket's shards whether
 * or not its state is sharded, the first tp rank takes what all tp ranks hold, and the first stage the tied embedding.
 * Weights and moments go to files of their own.
 */
export function planSave({ buckets, dpCp, tp, rank, kinds = TENSOR_KINDS }: SavePlanOptions): ShardPlan[] {
  const pieces = buckets.flatMap((bucket, index) => {
    if (bucket.kind.tied === 'copy' || (bucket.kind.tpReplicated && tp.rank !== 0)) return [];
    return bucketPieces(bucket, bucket.shardSize * dpCp.rank, bucket.shardSize).map((piece) => ({ piece, index }));
  });
  const shard = (name: string, wanted: readonly TensorKind[]): ShardPlan[] => {
    const saved = wanted.flatMap((kind) =>
      pieces.map(({ piece: { spec, rows, cols, offset }, index }): SavedPiece => {
        return { kind, parameter: spec.name, shape: spec.globalShape, area: { rows, cols }, bucket: index, offset };
      }),
    );
    return saved.length === 0 ? [] : [layOutShard(`${name}-${String(rank).padStart(5, '0')}.safetensors`, saved)];
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

function layOutShard(file: string, saved: readonly SavedPiece[]): ShardPlan {
  const specs = saved.map(({ kind, parameter, shape, area }): TensorSpec => {
    const name = pieceName(tensorName(kind, parameter), shape, area);
    return { name, dtype: 'F32', shape: pieceShape(shape, area) };
  });
  const { head, header } = layOut(specs, {});
  const pieces = saved.map((piece, i) => {
    const { offset: position, bytes } = header.tensors[i] as (typeof header.tensors)[number];
    if (bytes !== 4 * areaOf(piece.area)) throw new Error(`${piece.parameter} was laid out out of order`);
    return { ...piece, position, bytes };
  });
  return { file, head, bytes: header.fileBytes, pieces };
}
