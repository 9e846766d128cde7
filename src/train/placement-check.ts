import { crc32 } from '../base/crc32.js';
import type { CommGroup } from '../groups/comm/comm-group.js';
import { MbridgeError } from '../base/errors.js';
import { MemoryPlan } from '../engine/memory-plan.js';
import type { Tensor } from '../engine/tensor.js';
import { NON_MEMBER } from '../groups/grid/process-group.js';
import type { DistributedModel } from '../model/stage/distributed-model.js';
import type { Bucket } from '../model/parameters/bucket.js';
import type { Groups } from './setup.js';

/** Bytes read back at once. */
const CHUNK_BYTES = 64 << 20;

/**
 * Compares what several ranks must hold alike, by checksum: every bucket over the replicas, norms over tp, and the
 * copies of a tied embedding. A wrong reduction group shows here by name, where otherwise only the loss would drift.
 * Reads all parameters back, so it is for debugging (`dist.check_placement`).
 */
export class PlacementCheck {
  readonly #model: DistributedModel;
  readonly #pgs: Groups;
  readonly #plan = new MemoryPlan();
  readonly #sums: Tensor;

  constructor(model: DistributedModel, pgs: Groups) {
    this.#model = model;
    this.#pgs = pgs;
    this.#sums = this.#plan.tensor('communication', [4], 'f32');
    this.#plan.commit(model.device);
  }

  /**
   * Collective over the model's ranks.
   * @throws MbridgeError MB_PLACEMENT naming bucket and ranks
   */
  check(step: number): void {
    const { tp } = this.#pgs;
    this.#model.settleParameters();
    for (const bucket of this.#model.stage.buffer.buckets) {
      const sum = this.#checksum(bucket);
      this.#compare(bucket, sum, bucket.group, step);
      if (bucket.kind.tpReplicated) this.#compare(bucket, sum, tp, step);
      const embd = bucket.kind.tied === 'none' ? null : this.#pgs.embd;
      if (embd !== null && embd !== NON_MEMBER) this.#compare(bucket, sum, embd, step);
    }
  }

  dispose(): void {
    this.#plan.release();
  }

  #compare(bucket: Bucket, sum: number, group: CommGroup, step: number): void {
    if (group.size === 1) return;
    const { device } = this.#model;
    // Halves of 16 bits are exact in float32; max(x) = -max(-x) where all x are the same.
    const [high, low] = [sum >>> 16, sum & 0xffff];
    const values = Float32Array.of(high, -high, low, -low);
    device.write(this.#sums, values);
    group.allReduce(this.#sums, 'max');
    device.read(this.#sums, values);
    const [a = 0, b = 0, c = 0, d = 0] = values;
    if (a === -b && c === -d) return;
    const found = `parameters of bucket ${bucket.name} differ between ranks ${group.ranks.join(', ')} after update ${step}`;
    throw new MbridgeError('internal', 'MB_PLACEMENT', found, {
      hint: 'a reduction ran over the wrong group, or a device computes wrongly; the run before it cannot be trusted',
      details: { bucket: bucket.name, group: group.name, ranks: group.ranks, step },
    });
  }

  #checksum({ params }: Bucket): number {
    const perElement = params.bytes / params.size;
    const count = CHUNK_BYTES / perElement;
    let sum = 0;
    for (let at = 0; at < params.size; at += count) {
      const part = params.slice(at, Math.min(count, params.size - at));
      const bytes = new Uint8Array(part.bytes);
      this.#model.device.read(part, bytes);
      sum = crc32(bytes, sum);
    }
    return sum;
  }
}
