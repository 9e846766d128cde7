import { STREAM, type Device, type Stream } from '../../engine/device.js';
import type { MemoryPlan } from '../../engine/memory-plan.js';
import type { Tensor } from '../../engine/tensor.js';
import { COMM_OPS } from '../../engine/op-table.js';
import type { ProcessGroup } from '../grid/process-group.js';

export interface PointToPoint {
  readonly kind: 'send' | 'receive';
  /** Rank in the group. */
  readonly peer: number;
  readonly tensor: Tensor;
}

/** A run of elements of a flat tensor. */
export interface Part {
  readonly offset: number;
  readonly count: number;
}

/** Tracks of a trace: collectives of a stream are done one after the other. */
const COLLECTIVES: Readonly<Record<Stream, string>> = {
  [STREAM.compute]: 'collectives',
  [STREAM.pipeline]: 'collectives: pipeline',
  [STREAM.data]: 'collectives: data parallel',
  [STREAM.tensor]: 'collectives: tensor parallel',
  [STREAM.copy]: 'collectives: copies',
};

function equalParts(tensor: Tensor, pieces: number): Part[] {
  const count = tensor.size / pieces;
  if (!Number.isInteger(count)) throw new RangeError(`${tensor.size} elements cannot be cut into ${pieces} pieces`);
  return Array.from({ length: pieces }, (_, i) => ({ offset: i * count, count }));
}

/**
 * A process group that can communicate. A group of one has no communicator: its collectives are copies, or nothing
 * where input and output are the same memory.
 */
export class CommGroup implements ProcessGroup {
  readonly name: string;
  readonly ranks: readonly number[];
  readonly rank: number;
  readonly device: Device;
  #handle: number | null;
  readonly #spansNodes: boolean;
  readonly #sharedArenas = new Set<number>();

  /**
   * @param handle native communicator, or null for a group of one
   * @param spansNodes whether the members are on several nodes
   */
  constructor(
    name: string,
    ranks: readonly number[],
    rank: number,
    device: Device,
    handle: number | null,
    spansNodes = false,
  ) {
    this.#spansNodes = spansNodes;
    this.name = name;
    this.ranks = ranks;
    this.rank = rank;
    this.device = device;
    this.#handle = handle;
  }

  get size(): number {
    return this.ranks.length;
  }

  get #comm(): number {
    if (this.#handle === null) {
      throw new Error(`group ${this.name} ${this.size === 1 ? 'has one rank: nobody to talk to' : 'was destroyed'}`);
    }
    return this.#handle;
  }

  /** x = reduction of x over the group, in place. */
  allReduce(x: Tensor, reduce: 'sum' | 'max' = 'sum', stream: Stream = STREAM.compute): void {
    if (this.size === 1) return;
    this.device.put(0, x);
    this.device.put(4, x);
    this.#together('allReduce', stream, (comm) => {
      this.device.binding.allReduce(comm, stream, x.size, reduce === 'sum' ? 0 : 1);
    });
  }

  /** out [n] = this rank's slice of the sum of `input` [size * n]; out may be that slice. */
  reduceScatter(input: Tensor, out: Tensor, stream: Stream = STREAM.compute): void {
    if (this.size === 1) return this.#copyUnlessSame(input, out, stream);
    this.device.put(0, input);
    this.device.put(4, out);
    this.#together('reduceScatter', stream, (comm) => {
      this.device.binding.reduceScatter(comm, stream, out.size, 0);
    });
  }

  /** out [size * n] = every rank's `input` [n]; input may be this rank's slice of out. */
  allGather(input: Tensor, out: Tensor, stream: Stream = STREAM.compute): void {
    if (this.size === 1) return this.#copyUnlessSame(input, out, stream);
    this.device.put(0, input);
    this.device.put(4, out);
    this.#together('allGather', stream, (comm) => {
      this.device.binding.allGather(comm, stream, input.size);
    });
  }

  broadcast(x: Tensor, root: number, stream: Stream = STREAM.compute): void {
    if (this.size === 1) return;
    this.device.put(0, x);
    this.#together('broadcast', stream, (comm) => {
      this.device.binding.broadcast(comm, stream, x.size, root);
    });
  }

  /** All transfers, however many, progress together; the order between two ranks is the order of the list. */
  exchange(transfers: readonly PointToPoint[], stream: Stream = STREAM.pipeline): void {
    const list = new Float64Array(6 * transfers.length);
    let at = 0;
    for (const { tensor } of transfers) {
      this.device.put(at, tensor, list);
      at += 4;
    }
    for (const { peer, kind } of transfers) {
      list[at++] = peer;
      list[at++] = kind === 'send' ? 1 : 0;
    }
    this.#together('exchange', stream, (comm) => {
      this.device.binding.p2p(comm, stream, list);
    });
  }

  /**
   * Every rank sends each of the others a part of `input` and receives one of theirs in `out`, all at once. Without
   * `parts` both are cut into `size` equal pieces, piece r for and from rank r (of the group). What a rank sends another
   * must be as long as what that one expects; the two tensors have one type and do not overlap.
   * @param parts for every rank of the group, in elements: what goes to it, and where what comes from it goes
   */
  allToAll(
    input: Tensor,
    out: Tensor,
    parts: { readonly send: readonly Part[]; readonly receive: readonly Part[] } = {
      send: equalParts(input, this.size),
      receive: equalParts(out, this.size),
    },
    stream: Stream = STREAM.compute,
  ): void {
    const { send, receive } = parts;
    if (send.length !== this.size || receive.length !== this.size) {
      throw new RangeError(`all-to-all of ${send.length} and ${receive.length} parts in a group of ${this.size}`);
    }
    if (this.size === 1) {
      const [from, to] = [send[0] as Part, receive[0] as Part];
      this.device.copy(input.slice(from.offset, from.count), out.slice(to.offset, to.count), stream);
      return;
    }
    const list = [send, receive].flatMap((list) => [list.map((p) => p.count), list.map((p) => p.offset)]).flat();
    this.device.put(0, input);
    this.device.put(4, out);
    this.#together('allToAll', stream, (comm) => {
      this.device.binding.allToAll(comm, stream, Float64Array.from(list));
    });
  }

  barrier(stream: Stream = STREAM.compute): void {
    if (this.size === 1) return;
    this.#together('barrier', stream, (comm) => {
      this.device.binding.barrier(comm, stream);
    });
  }

  /**
   * Opens the members' memory to each other, where they can reach it: then collectives on tensors of the plan read and
   * write it directly, and {@link addNormGather} and {@link normBackwardGather} work on them. Every member calls it,
   * with a plan that is committed.
   */
  share(plan: MemoryPlan): void {
    // The CPU's moves what it "shares" through the communicator; GPUs of two nodes cannot reach each other's memory.
    if (this.size === 1 || (this.#spansNodes && this.device.kind === 'cuda')) return;
    for (const whole of plan.arenas()) {
      this.device.put(0, whole);
      if (!this.device.binding.commShare(this.#comm, plan.layout)) continue;
      this.#sharedArenas.add(whole.arena);
      plan.beforeRelease(() => {
        this.#unshare(whole);
      });
    }
  }

  #unshare(whole: Tensor): void {
    this.#sharedArenas.delete(whole.arena);
    if (this.#handle === null) return;
    this.device.put(0, whole);
    this.device.binding.commUnshare(this.#handle);
  }

  /** Whether the members share the memory of some plan. */
  get sharesMemory(): boolean {
    return this.#sharedArenas.size > 0;
  }

  /** Whether the members share the memory that the tensor lies in. */
  shares(tensor: Tensor): boolean {
    return this.#sharedArenas.has(tensor.arena);
  }

  /**
   * {@link allReduce} over memory that the members share, without NCCL, whose hand-over takes longer than so little. The
   * tensor is in whole 16 bytes, at most MB_COMM_SMALL of abi.h. After an abort what it leaves is garbage, so nothing that
   * decides over an update goes through it.
   */
  allReduceSmall(x: Tensor, reduce: 'sum' | 'max', stream: Stream = STREAM.compute): void {
    const count = this.device.arguments([x], [x.size, Number(reduce === 'max')]);
    this.#together('allReduceSmall', stream, (comm) => {
      this.device.binding.commRun(comm, stream, COMM_OPS.allReduceSmall.number, ...count);
    });
  }

  /**
   * The norm between two tensor-parallel products, in one call: sum = residual + this rank's rows of the members'
   * `partial` added up, y = rmsnorm(sum), full = all members' y.
   * `partial` and `full` are [size * rows, cols] in shared memory, the others [rows, cols].
   */
  addNormGather(
    t: { partial: Tensor; residual: Tensor; w: Tensor; sum: Tensor; y: Tensor; full: Tensor; rstd: Tensor },
    eps: number,
    stream: Stream = STREAM.compute,
  ): void {
    const cols = t.w.size;
    const tensors = [t.partial, t.residual, t.w, t.sum, t.y, t.full, t.rstd];
    const count = this.device.arguments(tensors, [t.rstd.size, cols, eps]);
    this.#together('reduceNormGather', stream, (comm) => {
      this.device.binding.commRun(comm, stream, COMM_OPS.reduceNormGather.number, ...count);
    });
  }

  /**
   * Its backward: the gradient of y is this rank's rows of the members' `partial` added up, dx (+)= the gradient of the
   * sum, dw (+)= that of the weight, full = all members' dx where it is wanted. `ws` as in `rmsnormBwd`.
   */
  normBackwardGather(
    t: {
      partial: Tensor;
      x: Tensor;
      w: Tensor;
      rstd: Tensor;
      dx: Tensor;
      dw: Tensor | null;
      ws: Tensor;
      full: Tensor | null;
    },
    accumulate: { dx: boolean; dw: boolean },
    stream: Stream = STREAM.compute,
  ): void {
    const tensors = [t.partial, t.x, t.w, t.rstd, t.dx, t.dw, t.ws, t.full];
    const scalars = [t.rstd.size, t.w.size, Number(accumulate.dx), Number(accumulate.dw)];
    const count = this.device.arguments(tensors, scalars);
    this.#together('normBwdGather', stream, (comm) => {
      this.device.binding.commRun(comm, stream, COMM_OPS.normBwdGather.number, ...count);
    });
  }

  /** The native communicator, or null in a group of one. */
  get communicator(): number | null {
    return this.size > 1 ? this.#handle : null;
  }

  /** Makes every pending and later call fail, here and at the peers. */
  abort(): void {
    if (this.size > 1 && this.#handle !== null) this.device.binding.commAbort(this.#handle);
  }

  destroy(): void {
    if (this.size > 1 && this.#handle !== null) this.device.binding.commDestroy(this.#handle);
    this.#handle = null;
  }

  /** A call in which the members wait for each other. */
  #together(name: string, stream: Stream, call: (comm: number) => void): void {
    const comm = this.#comm;
    const { stalls, spans } = this.device;
    const issue = (): void => {
      stalls.during(stream, () => {
        call(comm);
      });
    };
    if (spans.recording) spans.onDevice({ name: `${name} ${this.name}`, track: COLLECTIVES[stream] }, stream, issue);
    else issue();
  }

  #copyUnlessSame(input: Tensor, out: Tensor, stream: Stream): void {
    if (input.arena === out.arena && input.offset === out.offset) return;
    this.device.copy(input, out, stream);
  }
}
