import type { CommGroup } from '../../groups/comm/comm-group.js';
import { STREAM, type Device } from '../../engine/device.js';
import type { Tensor } from '../../engine/tensor.js';
import type { ParameterSpec, Place, Weight } from './parameter.js';
import { Readers } from './readers.js';

/** Why a bucket's parameters are treated alike; all of a bucket shares these. */
export interface BucketKind {
  readonly weightDecay: boolean;
  /** Every tp rank holds the whole parameter: counted once in norms. */
  readonly tpReplicated: boolean;
  /** Each tp rank has only its tokens' or heads' part of the gradient, which must be summed over tp. */
  readonly tpPartialGradient: boolean;
  /** The last stage's copy of a tied embedding: its gradient is summed over `embd`, and counted on the first stage. */
  readonly tied: 'none' | 'owner' | 'copy';
  /** Matrices whose gradients nothing but products adds to: they may be bf16. */
  readonly matrices: boolean;
  /** Small, of all layers, and read from the first one on: gathered first, and waited for at once. */
  readonly throughout: boolean;
}

/** Where a parameter lies in its bucket, in elements. */
export interface BucketEntry {
  readonly spec: ParameterSpec;
  readonly offset: number;
}

export interface BucketOptions {
  readonly name: string;
  readonly kind: BucketKind;
  readonly entries: readonly BucketEntry[];
  /** Elements, padded so that it divides by the number of replicas. */
  readonly size: number;
  /** The ranks that hold the same parameters. */
  readonly replicas: Place;
  /** How to talk to them; null while only planning. */
  readonly group: CommGroup | null;
  readonly params: Tensor;
  /** Memory of the gradient, null where it is frozen: of the whole of it, or of this rank's shard alone. */
  readonly gradients: Tensor | null;
  readonly keeps: 'whole' | 'shard';
  /** The bucket's weights, in order, with the element that each starts at. */
  readonly weights: readonly { readonly weight: Weight; readonly offset: number }[];
}

/**
 * A flat run of parameters: the unit of gradient reduction, of the optimizer and of parameter gathering. Replica r owns
 * elements [r, r+1) * shardSize, whatever parameters lie there. A bucket keeps its own state: where its gradient is,
 * whether its parameters are still on their way, and who still reads what an update would change.
 */
export class Bucket {
  readonly name: string;
  readonly kind: BucketKind;
  readonly entries: readonly BucketEntry[];
  readonly size: number;
  readonly shardSize: number;
  /** The ranks that hold the same parameters: gradients are summed, and state is sharded, over these. */
  readonly replicas: Place;
  readonly params: Tensor;
  /** This rank's part of the gradient, summed over replicas once the step's backwards are done; null if frozen. */
  readonly gradShard: Tensor | null;
  /** Of the parameters, and of the optimizer's state of them: an update waits for these. */
  readonly readers = new Readers();
  readonly #group: CommGroup | null;
  readonly #weights: BucketOptions['weights'];
  /** Memory of its own for the whole gradient. */
  readonly #own: Tensor | null;
  #lent: Tensor | null = null;
  #gathering: number | null = null;

  constructor(options: BucketOptions) {
    const { size, replicas, gradients, keeps } = options;
    this.name = options.name;
    this.kind = options.kind;
    this.entries = options.entries;
    this.size = size;
    this.shardSize = size / replicas.size;
    this.replicas = replicas;
    this.params = options.params;
    this.#group = options.group;
    this.#weights = options.weights;
    this.#own = keeps === 'whole' ? gradients : null;
    this.gradShard = this.#own === null ? gradients : this.shard(this.#own);
  }

  /** A frozen bucket has no gradient, and the optimizer no memory for it. */
  get trainable(): boolean {
    return this.gradShard !== null;
  }

  /** Whether it keeps a shard of its gradient only, so that a backward must be lent memory for the whole. */
  get borrows(): boolean {
    return this.gradShard !== null && this.#own === null;
  }

  /** The whole gradient: memory of its own, or what is lent to it; else null. */
  get grads(): Tensor | null {
    return this.#own ?? this.#lent;
  }

  get isLent(): boolean {
    return this.#lent !== null;
  }

  /** Its replicas as a group that can communicate. */
  get group(): CommGroup {
    if (this.#group === null) throw new Error(`bucket ${this.name} was only planned`);
    return this.#group;
  }

  /** This rank's shard of a flat tensor of the bucket's size. */
  shard(flat: Tensor): Tensor {
    return flat.slice(this.shardSize * this.replicas.rank, this.shardSize);
  }

  /** Lends it memory for the whole gradient, contents undefined: the next contribution to each weight overwrites. */
  lend(memory: Tensor): void {
    if (!this.borrows || this.#lent !== null) throw new Error(`bucket ${this.name} takes no memory for its gradient`);
    this.#lent = memory.slice(0, this.size);
    for (const { weight, offset } of this.#weights) {
      weight.grad = memory.slice(offset, weight.data.size, weight.data.shape);
      weight.reset();
    }
  }

  /** Takes back what was lent. */
  give(): void {
    if (this.#lent === null) throw new Error(`bucket ${this.name} holds no lent gradient`);
    this.#lent = null;
    for (const { weight } of this.#weights) weight.grad = null;
  }

  /** Starts a step: the first gradient of every weight overwrites. */
  reset(): void {
    for (const { weight } of this.#weights) weight.reset();
  }

  /** Its parameters are on their way from the other replicas until `event`. */
  gathering(event: number): void {
    this.#gathering = event;
  }

  get isGathering(): boolean {
    return this.#gathering !== null;
  }

  /** Makes the compute stream wait for parameters that are still on their way. */
  settle(device: Device): void {
    if (this.#gathering !== null) device.wait(STREAM.compute, this.#gathering);
    this.#gathering = null;
  }
}
