import { STREAM, type Device } from '../../engine/device.js';
import { STATE } from '../../engine/ops.js';
import type { Tensor } from '../../engine/tensor.js';
import type { BucketState, OptimizerState } from '../../model/optim/optimizer-state.js';
import type { TensorKind } from '../format/checkpoint-format.js';
import type { HostImage } from '../files/host-image.js';
import { areaOf } from '../../model/parameters/rectangle.js';
import { planSave, type SavedPiece } from '../format/save-plan.js';
import type { Bucket } from '../../model/parameters/bucket.js';
import type { Place } from '../../model/parameters/parameter.js';
import { DTYPES } from '../../engine/dtype.js';
import type { ShardLayout } from '../format/shard-layout.js';
import type { EventLease } from '../../engine/event-lease.js';

/**
 * A rank's shard files in pinned host memory. `take` starts copies of the state as it is after the
 * work that is enqueued; they run beside the next forward and backward, and the next update waits for them.
 */
export class StateSnapshot<Memory extends ArrayBufferLike> {
  readonly plans: readonly ShardLayout<SavedPiece>[];
  readonly images: readonly HostImage<Memory>[];
  readonly #device: Device;
  readonly #state: OptimizerState;
  /** Before the copies of a `take`, and after them. */
  readonly #events: EventLease;
  #pinned = false;
  readonly #copies: readonly { source: Tensor; views: readonly Uint8Array[] }[];

  /** @param imageOf takes the memory of a file */
  constructor(
    device: Device,
    state: OptimizerState,
    plans: readonly ShardLayout<SavedPiece>[],
    imageOf: (plan: ShardLayout) => HostImage<Memory>,
  ) {
    this.#device = device;
    this.#state = state;
    this.#events = device.lease(2);
    this.plans = plans;
    this.images = plans.map((plan) => {
      const image = imageOf(plan);
      image.set(0, plan.head);
      return image;
    });
    this.#copies = this.plans.flatMap(({ pieces }, i) => {
      const image = this.images[i] as HostImage<Memory>;
      return pieces.map((piece) => ({
        source: sourceOf(state, piece),
        views: image.views(piece.position, piece.bytes),
      }));
    });
  }

  /** Host memory that the files take. */
  get bytes(): number {
    return this.images.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Pins the memory, which takes some tenths of a second a GB, where that has not been done. */
  pin(): void {
    if (!this.#pinned) for (const chunk of this.#chunks()) this.#device.pin(chunk);
    this.#pinned = true;
  }

  /**
   * Starts the copies. Resolves with the optimizer's float64 scalars of this moment, once the images are filled: they
   * follow the copies on the copy stream, and the next update waits for both.
   */
  take(): Promise<Float64Array> {
    const device = this.#device;
    this.pin();
    const [before, after] = [this.#events.at(0), this.#events.at(1)];
    device.record(before, STREAM.compute);
    device.wait(STREAM.copy, before);
    for (const { source, views } of this.#copies) {
      const { bytes: size } = DTYPES[source.dtype];
      let done = 0;
      for (const view of views) {
        device.readAsync(source.slice(done / size, view.length / size), view, STREAM.copy);
        done += view.length;
      }
    }
    const scalars = device.fetch(this.#state.scalars, STREAM.copy);
    device.record(after, STREAM.copy);
    this.#state.readers.add(after);
    for (const { bucket } of this.#state.buckets) bucket.readers.add(after);
    return scalars.then((raw) => new Float64Array(raw.buffer, raw.byteOffset, STATE.length));
  }

  /** Gives the pinned memory and the events back; no copy may be under way. */
  release(): void {
    const after = this.#events.at(1);
    this.#state.readers.forget(after);
    for (const { bucket } of this.#state.buckets) bucket.readers.forget(after);
    this.#events.end();
    if (this.#pinned) for (const chunk of this.#chunks()) this.#device.unpin(chunk);
  }

  #chunks(): Uint8Array[] {
    return this.images.flatMap(({ chunks }) => chunks.map((chunk) => new Uint8Array(chunk)));
  }
}

/** Of a kind of tensor, the field of a bucket's state. */
const FIELD_OF = { weight: 'main', exp_avg: 'm', exp_avg_sq: 'v' } as const;
const STORED = { f32: 'F32', bf16: 'BF16' } as const;

export function stateTensor(state: BucketState, kind: TensorKind): Tensor {
  return state[FIELD_OF[kind]];
}

/**
 * The shard files of a rank. Of frozen parameters, which stand after the others, there is what the model computes with,
 * and nothing more.
 */
export function planShards(
  { buckets, frozen, types }: OptimizerState,
  place: { readonly tp: Place; readonly rank: number },
): ShardLayout<SavedPiece>[] {
  const asHeld = new Map(
    frozen.flatMap(({ params, entries }) =>
      entries.map(({ spec }) => [spec.name, STORED[params.dtype as keyof typeof STORED]] as const),
    ),
  );
  return planSave({
    ...place,
    buckets: [...buckets.map(({ bucket }) => bucket), ...frozen],
    has: (_, kind, bucket) => kind === 'weight' || !frozen.some(({ name }) => name === bucket.name),
    dtypeOf: (tensor, kind) => asHeld.get(tensor) ?? STORED[types[FIELD_OF[kind]]],
  });
}

function sourceOf(state: OptimizerState, { kind, bucket, offset, area }: SavedPiece): Tensor {
  const own = state.buckets[bucket];
  if (own === undefined)
    return (state.frozen[bucket - state.buckets.length] as Bucket).params.slice(offset, areaOf(area));
  return stateTensor(own, kind).slice(offset - own.start, areaOf(area));
}
