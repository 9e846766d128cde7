import type { Device } from '../engine/device.js';
import type { Tensor } from '../engine/tensor.js';
import type { Place } from '../model/parameter.js';
import type { BucketState, OptimizerState } from '../optim/optimizer-state.js';
import type { TensorKind } from './checkpoint-format.js';
import { HostImage } from './host-image.js';
import { areaOf } from './rectangle.js';
import type { SavedPiece } from './save-plan.js';
import type { ShardLayout } from './shard-layout.js';

/**
 * A rank's shard files in host memory, which is taken once. `take` fills them with the state as it is after the work
 * that is enqueued; training may go on when it returns. (On a GPU this is where copies to pinned memory under the next
 * forward pass go: the state changes only in the next optimizer update.)
 */
export class StateSnapshot {
  readonly plans: readonly ShardLayout<SavedPiece>[];
  readonly images: readonly HostImage[];
  private readonly device: Device;
  private readonly copies: readonly { source: Tensor; views: readonly Uint8Array[] }[];

  constructor(device: Device, state: OptimizerState, plans: readonly ShardLayout<SavedPiece>[], dpCp: Place) {
    this.device = device;
    this.plans = plans;
    this.images = plans.map(({ head, bytes }) => {
      const image = new HostImage(bytes);
      image.set(0, head);
      return image;
    });
    this.copies = plans.flatMap(({ pieces }, i) => {
      const image = this.images[i] as HostImage;
      return pieces.map((piece) => ({
        source: sourceOf(state, piece, dpCp),
        views: image.views(piece.position, piece.bytes),
      }));
    });
  }

  /** Host memory that the files take. */
  get bytes(): number {
    return this.images.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  take(): void {
    for (const { source, views } of this.copies) {
      let done = 0;
      for (const view of views) {
        this.device.read(source.slice(done / 4, view.length / 4), view);
        done += view.length;
      }
    }
  }
}

/** First element of a bucket that the optimizer's memory of it begins with. */
export function stateStart({ bucket, m }: BucketState, dpCp: Place): number {
  return m.size === bucket.size ? 0 : bucket.shardSize * dpCp.rank;
}

export function stateTensor({ main, m, v }: BucketState, kind: TensorKind): Tensor {
  return { weight: main, exp_avg: m, exp_avg_sq: v }[kind];
}

function sourceOf(state: OptimizerState, { kind, bucket, offset, area }: SavedPiece, dpCp: Place): Tensor {
  const own = state.buckets[bucket] as BucketState;
  return stateTensor(own, kind).slice(offset - stateStart(own, dpCp), areaOf(area));
}
