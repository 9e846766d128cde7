import { crc32 } from '../../base/crc32.js';
import type { FileRecord } from './file-record.js';

/** A file is checksummed in blocks of this size, so that whoever reads a part can check what is read. */
export const BLOCK_BYTES = 4 << 20;

/** Checksums of a file whose bytes pass by in order, in pieces of any size. */
export class BlockChecksums {
  readonly #done: string[] = [];
  #bytes = 0;
  #crc = 0;

  add(piece: Uint8Array): void {
    for (let at = 0; at < piece.length;) {
      const room = BLOCK_BYTES - (this.#bytes % BLOCK_BYTES);
      const part = piece.subarray(at, at + room);
      this.#crc = crc32(part, this.#crc);
      at += part.length;
      this.#bytes += part.length;
      if (this.#bytes % BLOCK_BYTES === 0) this.#close();
    }
  }

  finish(): FileRecord {
    if (this.#bytes % BLOCK_BYTES !== 0) this.#close();
    return { bytes: this.#bytes, crc32: this.#done };
  }

  #close(): void {
    this.#done.push(hex(this.#crc));
    this.#crc = 0;
  }
}

/** The record of a file of `bytes`, from the CRC-32 of each of its blocks. */
export function fileRecord(bytes: number, sums: readonly Uint32Array[]): FileRecord {
  return { bytes, crc32: sums.flatMap((some) => Array.from(some, hex)) };
}

export function checksumsOf(bytes: Uint8Array): FileRecord {
  const sums = new BlockChecksums();
  sums.add(bytes);
  return sums.finish();
}

/** Checksum of a commit record's list of files. */
export function recordChecksum(files: Readonly<Record<string, FileRecord>>): string {
  return hex(crc32(Buffer.from(JSON.stringify(files))));
}

/** A checksum as it is written: 8 digits. */
export function hex(crc: number): string {
  return crc.toString(16).padStart(8, '0');
}
