import { open, type FileHandle } from 'node:fs/promises';
import { READ_FLAGS } from '../../base/regular-file.js';
import { crc32 } from '../../base/crc32.js';
import { BLOCK_BYTES, hex } from './block-checksums.js';
import { badCheckpoint, checkpointIoError } from './checkpoint-error.js';
import { errnoOf } from '../../base/system-error.js';
import type { FileRecord } from './file-record.js';

/** Blocks that are read at a time. */
const READS_AT_ONCE = 4;

/** CRC-32 of a block, which must not change meanwhile. */
export type BlockSum = (block: Uint8Array) => number | Promise<number>;

/** A file of a checkpoint whose checksums are known: nothing is handed out that was not checked. */
export class CheckedFile {
  readonly path: string;
  readonly bytes: number;
  readonly #sums: readonly string[];
  readonly #handle: FileHandle;
  /** Where it begins in what is read. */
  readonly #start: number;
  readonly #sum: BlockSum;
  /** The last block of which only a part was asked for; the neighbours of that part come next. */
  #kept: { block: number; bytes: Promise<Uint8Array> } | undefined;

  private constructor(path: string, record: FileRecord, handle: FileHandle, start: number, sum: BlockSum) {
    this.path = path;
    this.bytes = record.bytes;
    this.#sums = record.crc32;
    this.#handle = handle;
    this.#start = start;
    this.#sum = sum;
  }

  /**
   * @param start where the file begins in shared memory that is opened for it; else it is all of `path`
   * @param sum a quicker one than that of this thread
   * @throws MbridgeError exit 7 for a file that is missing, or of another size than it was written with
   */
  static async open(path: string, record: FileRecord, start?: number, sum: BlockSum = crc32): Promise<CheckedFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, READ_FLAGS);
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT') throw checkpointIoError('open', path, cause);
      throw badCheckpoint('MISSING_FILE', path, 'is missing from its checkpoint', 'copy the whole folder again');
    }
    const file = new CheckedFile(path, record, handle, start ?? 0, sum);
    try {
      const { size } = await handle.stat();
      if (start === undefined ? size !== record.bytes : size < start + record.bytes) {
        throw badCheckpoint('SIZE', path, `has ${size} bytes, ${record.bytes} were written`, DAMAGED);
      }
      if (record.crc32.length !== Math.ceil(record.bytes / BLOCK_BYTES)) {
        const found = `${record.crc32.length} checksums for ${record.bytes} bytes`;
        throw badCheckpoint('COMMIT', path, found, DAMAGED);
      }
      return file;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Fills `dst` from byte `position` on. */
  async read(dst: Uint8Array, position: number): Promise<void> {
    const end = position + dst.length;
    if (position < 0 || end > this.bytes) throw new RangeError(`bytes ${position}..${end} of ${this.path}`);
    const pending: Promise<void>[] = [];
    for (let at = position; at < end;) {
      const block = Math.floor(at / BLOCK_BYTES);
      const blockEnd = Math.min(this.bytes, (block + 1) * BLOCK_BYTES);
      const stop = Math.min(end, blockEnd);
      const target = dst.subarray(at - position, stop - position);
      const whole = at === block * BLOCK_BYTES && stop === blockEnd;
      pending.push(whole ? this.#readBlock(block, target) : this.#readPart(block, at - block * BLOCK_BYTES, target));
      at = stop;
      if (pending.length === READS_AT_ONCE) await Promise.all(pending.splice(0));
    }
    await Promise.all(pending);
  }

  /** Reads the whole file once and checks it. */
  async verify(): Promise<void> {
    const block = new Uint8Array(Math.min(BLOCK_BYTES, this.bytes));
    for (let i = 0; i < this.#sums.length; i++) {
      await this.#readBlock(i, block.subarray(0, Math.min(BLOCK_BYTES, this.bytes - i * BLOCK_BYTES)));
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #readPart(block: number, from: number, target: Uint8Array): Promise<void> {
    if (this.#kept?.block !== block) {
      const bytes = new Uint8Array(Math.min(BLOCK_BYTES, this.bytes - block * BLOCK_BYTES));
      this.#kept = { block, bytes: this.#readBlock(block, bytes).then(() => bytes) };
    }
    const bytes = await this.#kept.bytes;
    target.set(bytes.subarray(from, from + target.length));
  }

  async #readBlock(block: number, target: Uint8Array): Promise<void> {
    const position = block * BLOCK_BYTES;
    await readFully(this.#handle, this.path, target, this.#start + position);
    const sum = hex(await this.#sum(target));
    if (sum === this.#sums[block]) return;
    const found = `bytes ${position}..${position + target.length} are not what was written (checksum ${sum}, was ${this.#sums[block]})`;
    throw badCheckpoint('CHECKSUM', this.path, found, DAMAGED, { position, bytes: target.length });
  }
}

const DAMAGED =
  'the file is damaged; copy it again, or resume from an earlier checkpoint (checkpoint.load=<its folder>)';

async function readFully(handle: FileHandle, path: string, dst: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < dst.length;) {
    let got: number;
    try {
      got = (await handle.read(dst, done, dst.length - done, position + done)).bytesRead;
    } catch (cause) {
      throw checkpointIoError('read', path, cause);
    }
    if (got === 0) throw badCheckpoint('SIZE', path, `ends at byte ${position + done} since it was opened`, DAMAGED);
    done += got;
  }
}
