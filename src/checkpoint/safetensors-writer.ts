import { open, type FileHandle } from 'node:fs/promises';
import { badFile, fileError } from './safetensors-error.js';
import { layOut } from './safetensors-header.js';
import type { TensorEntry, TensorSpec } from './safetensors-header.js';

const LARGEST_WRITE = 1 << 30;

/**
 * Writes a safetensors file whose tensors are known beforehand; their bytes may come in any order and in pieces, so
 * that only a piece need be in memory. The file is complete only after `finish`; write it under a temporary name and
 * rename it then.
 */
export class SafetensorsWriter {
  readonly path: string;
  /** Size of the finished file. */
  readonly fileBytes: number;
  readonly #handle: FileHandle;
  readonly #tensors: ReadonlyMap<string, TensorEntry>;
  readonly #written = new Map<string, number>();

  private constructor(path: string, handle: FileHandle, tensors: readonly TensorEntry[], fileBytes: number) {
    this.path = path;
    this.fileBytes = fileBytes;
    this.#handle = handle;
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  }

  /** Creates or replaces `path` and writes the header. Equal arguments give equal bytes. */
  static async create(
    path: string,
    specs: readonly TensorSpec[],
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<SafetensorsWriter> {
    const { head, header } = layOut(specs, metadata);
    let handle: FileHandle;
    try {
      handle = await open(path, 'w');
    } catch (cause) {
      throw fileError('open', path, cause);
    }
    const writer = new SafetensorsWriter(path, handle, header.tensors, header.fileBytes);
    try {
      await writer.#writeFully(head, 0);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return writer;
  }

  /** Writes a piece of a tensor from its byte `byteStart` on. Every byte must be written exactly once. */
  async write(name: string, piece: Uint8Array, byteStart = 0): Promise<void> {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new RangeError(`${this.path} has no tensor ${name}`);
    if (byteStart < 0 || byteStart + piece.length > tensor.bytes) {
      throw new RangeError(`bytes ${byteStart}..${byteStart + piece.length} of ${name}, which has ${tensor.bytes}`);
    }
    await this.#writeFully(piece, tensor.offset + byteStart);
    this.#written.set(name, (this.#written.get(name) ?? 0) + piece.length);
  }

  /** Checks that every tensor got its bytes, forces the file to the disk and closes it. */
  async finish(): Promise<void> {
    try {
      for (const { name, bytes } of this.#tensors.values()) {
        const written = this.#written.get(name) ?? 0;
        if (written !== bytes) {
          const found = `tensor ${JSON.stringify(name)} got ${written} of its ${bytes} bytes`;
          throw badFile('INCOMPLETE', this.path, found, 'this is a bug of the writer; report it');
        }
      }
      try {
        await this.#handle.sync();
      } catch (cause) {
        throw fileError('write', this.path, cause);
      }
    } finally {
      await this.#handle.close();
    }
  }

  /** Closes an unfinished file, after an error; the caller removes it. */
  async abandon(): Promise<void> {
    await this.#handle.close();
  }

  async #writeFully(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const want = Math.min(LARGEST_WRITE, bytes.length - done);
      try {
        done += (await this.#handle.write(bytes, done, want, position + done)).bytesWritten;
      } catch (cause) {
        throw fileError('write', this.path, cause);
      }
    }
  }
}
