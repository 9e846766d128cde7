import type { Bucket } from './bucket.js';

/** Where data parallelism hides its communication, and where it lends gradient memory. */
export interface BucketHooks {
  /** The parameters of the bucket are about to be read. */
  needed(bucket: Bucket): void;
  /** A backward is about to write gradients of the bucket. */
  opening(bucket: Bucket): void;
  /** This backward made its last contribution to the bucket; `last`: of the step. */
  done(bucket: Bucket, last: boolean): void;
}

export const NO_HOOKS: Readonly<BucketHooks> = {
  needed: () => undefined,
  opening: () => undefined,
  done: () => undefined,
};
