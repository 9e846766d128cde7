import { open, type FileHandle } from 'node:fs/promises';
import { READ_FLAGS } from '../../base/regular-file.js';
import { badFile, fileError } from './safetensors-error.js';
import { LENGTH_BYTES, parseHeader, parseHeaderLength } from './safetensors-header.js';
import type { SafetensorsHeader, TensorEntry } from './safetensors-header.js';

export type { TensorEntry, TensorSpec } from './safetensors-header.js';

/** One read of the system takes at most 2 GiB; whole MiBs keep it aligned. */
const LARGEST_READ = 1 << 30;

/** An open safetensors file: its header is checked against the file's size when it is opened, data is read on demand. */
export class SafetensorsFile {
  readonly path: string;
  /** By name, in the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, header: SafetensorsHeader) {
    this.path = path;
    this.#handle = handle;
    this.tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
    this.metadata = header.metadata;
  }

  /** Throws an MbridgeError (exit 7) for a file that is missing, truncated or malformed. */
  static async open(path: string): Promise<SafetensorsFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, READ_FLAGS);
    } catch (cause) {
      throw fileError('open', path, cause);
    }
    try {
      return new SafetensorsFile(path, handle, await readHeader(handle, path));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** The entry of a tensor; throws an MbridgeError that names it when the file has none. */
  tensor(name: string): TensorEntry {
    const tensor = this.tensors.get(name);
    if (tensor !== undefined) return tensor;
    const found = `no tensor ${JSON.stringify(name)} among its ${this.tensors.size}`;
    throw badFile('NO_TENSOR', this.path, found, 'the file belongs to another model, or is incomplete', {
      tensor: name,
    });
  }

  /** Fills `dst` with the bytes of a tensor from its byte `byteStart` on; the range must lie inside the tensor. */
  async readInto(name: string, dst: Uint8Array, byteStart = 0): Promise<void> {
    const tensor = this.tensor(name);
    if (byteStart < 0 || byteStart + dst.length > tensor.bytes) {
      throw new RangeError(`bytes ${byteStart}..${byteStart + dst.length} of ${name}, which has ${tensor.bytes}`);
    }
    await readFully(this.#handle, this.path, dst, tensor.offset + byteStart);
  }

  /** The bytes of rows rowStart..rowEnd-1 (of the first dimension); the whole tensor by default. */
  async readRows(name: string, rowStart = 0, rowEnd?: number): Promise<Uint8Array> {
    const { shape, bytes } = this.tensor(name);
    const rows = shape[0] ?? 1;
    const end = rowEnd ?? rows;
    if (rowStart < 0 || rowStart > end || end > rows) throw new RangeError(`rows ${rowStart}..${end} of ${name}`);
    const rowBytes = rows === 0 ? 0 : bytes / rows;
    const dst = new Uint8Array((end - rowStart) * rowBytes);
    await this.readInto(name, dst, rowStart * rowBytes);
    return dst;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function readHeader(handle: FileHandle, path: string): Promise<SafetensorsHeader> {
  const stat = await handle.stat();
  if (!stat.isFile()) throw badFile('OPEN', path, 'is not a regular file', 'name the .safetensors file itself');
  const first = new Uint8Array(LENGTH_BYTES);
  if (stat.size >= LENGTH_BYTES) await readFully(handle, path, first, 0);
  const json = new Uint8Array(parseHeaderLength(first, path, stat.size));
  await readFully(handle, path, json, LENGTH_BYTES);
  return parseHeader(json, path, stat.size);
}

async function readFully(handle: FileHandle, path: string, dst: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < dst.length;) {
    const want = Math.min(LARGEST_READ, dst.length - done);
    let got: number;
    try {
      got = (await handle.read(dst, done, want, position + done)).bytesRead;
    } catch (cause) {
      throw fileError('read', path, cause);
    }
    if (got === 0) {
      const found = `ends at byte ${position + done} since it was opened`;
      throw badFile('TRUNCATED', path, found, 'do not change a file while it is read');
    }
    done += got;
  }
}
