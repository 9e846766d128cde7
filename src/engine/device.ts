import type { AttentionSizes } from './attention-sizes.js';
import type { NativeBinding, NativeDeviceInfo } from './binding.js';
import { DTYPES } from './dtype.js';
import { EventLease } from './event-lease.js';
import { SpanClock } from './span-clock.js';
import { StallClock } from './stall-clock.js';
import type { Tensor } from './tensor.js';

/** Streams of a device. On the CPU all of them are synchronous. */
export const STREAM = { compute: 0, pipeline: 1, data: 2, tensor: 3, copy: 4 } as const;
export type Stream = (typeof STREAM)[keyof typeof STREAM];

/**
 * One CPU or GPU, opened for this process. Calls enqueue work on a stream and return; nothing here keeps state
 * outside the object.
 */
export class Device {
  readonly binding: NativeBinding;
  readonly kind: 'cpu' | 'cuda';
  readonly handle: number;
  readonly info: NativeDeviceInfo;
  /** Every wait for others goes through it. */
  readonly stalls: StallClock;
  /** When it did what, where that is recorded. */
  readonly spans: SpanClock;

  private constructor(binding: NativeBinding, kind: 'cpu' | 'cuda', handle: number) {
    this.binding = binding;
    this.kind = kind;
    this.handle = handle;
    this.info = binding.info(handle);
    this.stalls = new StallClock(binding, handle, kind === 'cpu');
    this.spans = new SpanClock(binding, handle, kind === 'cpu');
  }

  /** @param threads CPU threads of this process; ignored on a GPU. */
  static open(binding: NativeBinding, kind: 'cpu' | 'cuda', index: number, threads: number): Device {
    return new Device(binding, kind, binding.open(kind, index, threads));
  }

  /**
   * What this rank does from now on, for who reads its flight record: a noun with its article, such as `the optimizer`.
   * @param step the update, from 1; 0 before the first
   */
  phase(step: number, words: string): void {
    this.binding.flightPhase(step, words);
  }

  /** Total and free bytes as of now. */
  memory(): { totalBytes: number; freeBytes: number } {
    const { totalBytes, freeBytes } = this.binding.info(this.handle);
    return { totalBytes, freeBytes };
  }

  createArena(bytes: number): number {
    return this.binding.arenaCreate(this.handle, bytes);
  }

  /** Memory of the host that {@link copy} reads and writes at the full rate of the bus. */
  createHostArena(bytes: number): number {
    return this.binding.hostArenaCreate(this.handle, bytes);
  }

  freeArena(arena: number): void {
    this.binding.arenaFree(arena);
  }

  /** Takes `count` events to order streams by, or, `timed`, for {@link elapsedMs}; they are given back by its `end`. */
  lease(count: number, { timed = false }: { timed?: boolean } = {}): EventLease {
    return new EventLease(this.binding, this.handle, count, timed);
  }

  /** Milliseconds between two timed events; waits for them. */
  elapsedMs(first: number, second: number): number {
    return this.binding.elapsedMs(this.handle, first, second);
  }

  record(event: number, stream: Stream): void {
    this.binding.record(this.handle, stream, event);
  }

  /** Work enqueued on `stream` from now on starts after `event`. */
  wait(stream: Stream, event: number): void {
    this.stalls.during(stream, () => {
      this.binding.wait(this.handle, stream, event);
    });
  }

  /** Host to device, ordered on the stream; `src` may be reused on return. */
  write(dst: Tensor, src: ArrayBufferView, stream: Stream = STREAM.compute): void {
    this.put(0, dst);
    this.binding.write(this.handle, stream, new Uint8Array(src.buffer, src.byteOffset, src.byteLength));
  }

  /** Device to host; blocks until filled. */
  read(src: Tensor, dst: ArrayBufferView, stream: Stream = STREAM.compute): void {
    this.put(0, src);
    this.binding.read(this.handle, stream, new Uint8Array(dst.buffer, dst.byteOffset, dst.byteLength));
  }

  /** Reads up to 64 KiB without stopping the stream; resolves when the value is there. */
  fetch(src: Tensor, stream: Stream = STREAM.compute): Promise<Uint8Array> {
    this.put(0, src);
    const ticket = this.binding.fetchBegin(this.handle, stream);
    return this.binding.fetchWait(this.handle, ticket, src.bytes);
  }

  /** Pins memory for {@link readAsync}. It must stay referenced until {@link unpin}. */
  pin(memory: Uint8Array): void {
    this.binding.hostRegister(this.handle, memory);
  }

  unpin(memory: Uint8Array): void {
    this.binding.hostUnregister(this.handle, memory);
  }

  /** Device to pinned memory; `dst` is filled when the stream has passed the copy. */
  readAsync(src: Tensor, dst: Uint8Array, stream: Stream): void {
    this.put(0, src);
    this.binding.readAsync(this.handle, stream, dst);
  }

  copy(src: Tensor, dst: Tensor, stream: Stream = STREAM.compute): void {
    this.put(0, src);
    this.put(4, dst);
    this.binding.copy(this.handle, stream);
  }

  synchronize(): void {
    this.binding.synchronize(this.handle);
  }

  /** Bytes of attention workspace for these sizes, and the kernel that will serve. */
  attentionWorkspace(dtype: 'f32' | 'bf16', sizes: AttentionSizes): { bytes: number; kernel: string } {
    const { batch, seq, heads, kvHeads, headDim, deterministic, keys = seq, offset = 0 } = sizes;
    return this.binding.attentionWorkspace(
      this.handle,
      DTYPES[dtype].code,
      batch,
      seq,
      keys,
      heads,
      kvHeads,
      headDim,
      offset,
      deterministic,
    );
  }

  close(): void {
    this.stalls.close();
    this.spans.close();
    this.binding.close(this.handle);
  }

  /** Writes a tensor's four numbers to the argument buffer, or another, at `at`. */
  put(at: number, tensor: Tensor | null, args: Float64Array = this.binding.args): void {
    if (tensor === null) {
      args[at] = -1;
      args[at + 1] = args[at + 2] = args[at + 3] = 0;
      return;
    }
    args[at] = tensor.arena;
    args[at + 1] = tensor.offset;
    args[at + 2] = tensor.bytes;
    args[at + 3] = DTYPES[tensor.dtype].code;
  }

  /** Runs an op of abi.h. */
  run(op: number, tensors: readonly (Tensor | null)[], scalars: readonly number[], stream: Stream): void {
    const [nt, ns] = this.arguments(tensors, scalars);
    this.binding.run(this.handle, stream, op, nt, ns);
  }

  /** Writes an op's arguments to the argument buffer. @returns how many tensors and scalars there are */
  arguments(tensors: readonly (Tensor | null)[], scalars: readonly number[]): [nt: number, ns: number] {
    const args = this.binding.args;
    let at = 0;
    for (const tensor of tensors) {
      this.put(at, tensor);
      at += 4;
    }
    for (const scalar of scalars) args[at++] = scalar;
    return [tensors.length, scalars.length];
  }
}
