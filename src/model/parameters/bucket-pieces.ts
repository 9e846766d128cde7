import type { Bucket } from './bucket.js';
import { localSize, type ParameterSpec } from './parameter.js';
import { flatRange, type PlacedRectangle } from './rectangle.js';

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
