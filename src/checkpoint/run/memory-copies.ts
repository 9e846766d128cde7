import { closeSync, fstatSync, openSync } from 'node:fs';
import type { Device } from '../../engine/device.js';
import type { MemoryKeeper } from '../../job/rendezvous/memory-keeper.js';
import type { OptimizerState } from '../../model/optim/optimizer-state.js';
import type { Place } from '../../model/parameters/parameter.js';
import { BLOCK_BYTES, fileRecord } from '../files/block-checksums.js';
import type { FileRecord } from '../files/file-record.js';
import { HostImage } from '../files/host-image.js';
import type { CheckpointState } from '../format/checkpoint-format.js';
import {
  clearHeader,
  layOutMemory,
  sealCopy,
  slotOf,
  type MemoryLayout,
  type MemorySlot,
} from '../format/memory-copy.js';
import type { SavedPiece } from '../format/save-plan.js';
import { describeShards, type ShardLayout } from '../format/shard-layout.js';
import { planShards, StateSnapshot } from './state-snapshot.js';

export interface MemoryCopiesOptions {
  readonly keeper: MemoryKeeper;
  readonly device: Device;
  readonly optimizer: OptimizerState;
  readonly place: { readonly tp: Place; readonly model: Place };
  /** How long one rank waits for the others. */
  readonly timeoutMs: number;
  /** The training state at the end of an update, from the device's float64 scalars. */
  readonly describe: (step: number, scalars: Float64Array) => CheckpointState;
}

interface Slot {
  readonly slot: MemorySlot;
  readonly snapshot: StateSnapshot<ArrayBuffer>;
}

/**
 * Copies of this rank's part of the training state in memory that outlives it: what a checkpoint would hold, so that
 * what goes on from one has the same bits. A copy is started between two updates and ends beside the next one. Every
 * rank makes the same calls.
 */
export class MemoryCopies {
  readonly #o: MemoryCopiesOptions;
  readonly #plans: readonly ShardLayout<SavedPiece>[];
  readonly #fd: number;
  readonly #slots: readonly Slot[];
  /** The slot to be written next. */
  #next: 0 | 1;
  #last: number | null = null;
  #inFlight: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** The last update whose numbers are shown, and who waits for that. */
  #told = 0;
  #onTold: () => void = () => undefined;

  /** Takes the memory, or what an earlier process of this rank left, and gives it to who keeps it. */
  constructor(options: MemoryCopiesOptions) {
    this.#o = options;
    const { keeper, device, optimizer, place } = options;
    const rank = place.model.rank;
    this.#plans = planShards(optimizer, { tp: place.tp, rank });
    const layout = layOutMemory(this.#plans);
    const left = openLeft(keeper.paths[rank] ?? null, layout);
    this.#fd = left ?? device.binding.memoryCreate(layout.bytes, layout.reserved);
    const kept = keeper.step === null ? undefined : slotOf(this.#fd, keeper.step);
    this.#next = kept === 0 ? 1 : 0;
    if (left === null) keeper.give(this.#fd);
    this.#slots = layout.slots.map((slot, i) => {
      if (i !== kept) clearHeader(this.#fd, slot);
      const imageOf = ({ file, bytes }: ShardLayout): HostImage<ArrayBuffer> => {
        const { position } = slot.files.get(file) as { position: number };
        return new HostImage(bytes, (at, count) => device.binding.memoryMap(this.#fd, position + at, count));
      };
      return { slot, snapshot: new StateSnapshot(device, optimizer, this.#plans, imageOf) };
    });
  }

  /**
   * Starts the copy of the state after update `step`, once all ranks have the copy before. On a CPU that it ends as well,
   * the numbers of the update must be shown before.
   * @throws MbridgeError MB_MEMORY_COPY_HANG (exit 6) where a rank does not get it
   */
  async copy(step: number): Promise<void> {
    await this.#inFlight;
    this.check();
    const { keeper, device, timeoutMs } = this.#o;
    if (this.#last !== null) await keeper.whole(this.#last, timeoutMs);
    this.#last = step;
    const { slot, snapshot } = this.#slots[this.#next] as Slot;
    this.#next = this.#next === 0 ? 1 : 0;
    clearHeader(this.#fd, slot);
    snapshot.pin();
    this.#inFlight = this.#seal(step, slot, snapshot).catch((error: unknown) => {
      this.#failure = error;
    });
    // This thread computes the next update on a CPU, and would end the copy only after it.
    if (device.kind !== 'cpu') return;
    await this.#inFlight;
    this.check();
  }

  /**
   * Says that the numbers of the updates up to `step` are shown. A copy counts from then on: what goes on from it does not
   * show them again.
   */
  told(step: number): void {
    this.#told = Math.max(this.#told, step);
    this.#onTold();
  }

  /** Throws what went wrong in the background since. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Waits for the copy that is under way, and gives everything back but the copies. */
  async close(): Promise<void> {
    try {
      this.told(Infinity);
      await this.#inFlight;
      this.check();
    } finally {
      for (const { snapshot } of this.#slots) snapshot.release();
      closeSync(this.#fd);
    }
  }

  async #seal(step: number, slot: MemorySlot, snapshot: Slot['snapshot']): Promise<void> {
    const { keeper, place, describe } = this.#o;
    const scalars = await snapshot.take();
    const sums = await Promise.all(snapshot.images.map((image) => this.#sum(image)));
    const first = place.model.rank === 0;
    if (first) await this.#whenTold(step);
    const positions = Object.fromEntries([...slot.files].map(([file, { position }]) => [file, position]));
    const state = first ? describe(step, scalars) : null;
    sealCopy(this.#fd, slot, step, { ...describeShards(this.#plans, sums), positions, state });
    keeper.copied(step);
  }

  async #sum({ bytes, chunks }: HostImage<ArrayBuffer>): Promise<FileRecord> {
    const { binding } = this.#o.device;
    const sums = await Promise.all(chunks.map((chunk) => binding.blockSums(new Uint8Array(chunk), BLOCK_BYTES)));
    return fileRecord(bytes, sums);
  }

  async #whenTold(step: number): Promise<void> {
    while (this.#told < step) await new Promise<void>((resolve) => (this.#onTold = resolve));
  }
}

/** The memory that an earlier process of this rank gave, where it has room for the same; else null. */
function openLeft(path: string | null, { bytes }: MemoryLayout): number | null {
  if (path === null) return null;
  let fd: number;
  try {
    fd = openSync(path, 'r+');
  } catch {
    return null; // new memory serves as well
  }
  if (fstatSync(fd).size === bytes) return fd;
  closeSync(fd);
  return null;
}
