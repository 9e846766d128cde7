import type { Bucket, BucketKind } from './bucket.js';

/** Groups of a model over which gradients are summed, in this order. */
export type GradientSum = 'tp' | 'dpCp' | 'embd';

/** What a bucket's gradient is summed over: what the optimizer does, and what is proven of the plan. */
export function gradientSums({ kind, borrows }: Pick<Bucket, 'kind' | 'borrows'>): GradientSum[] {
  return [
    // A gradient that is lent memory goes to its shard at once.
    ...(kind.tpPartialGradient && !borrows ? (['tp'] as const) : []),
    'dpCp',
    ...(kind.tied === 'none' ? [] : (['embd'] as const)),
  ];
}

/** Whether a rank counts a bucket's gradient in the norm of all: of ranks that hold the same, one does. */
export function countedInNorm({ tied, tpReplicated }: BucketKind, tpRank: number): boolean {
  return tied !== 'copy' && (!tpReplicated || tpRank === 0);
}
