import { join } from 'node:path';
import { adapterParameters, type Adapters } from '../../families/adapters.js';
import type { HeadKind } from '../../families/decoder.js';
import type { ModelShape } from '../../families/model-shape.js';
import { loadBinding } from '../../engine/load.js';
import { badCheckpoint } from '../files/checkpoint-error.js';
import { CheckedFile } from '../files/checked-file.js';
import { readRecords, type CheckpointRecords } from './checkpoint-files.js';
import {
  INDEX_FILE,
  STATE_FILE,
  pieceName,
  pieceShape,
  MOMENTS,
  tensorName,
  type CheckpointIndex,
  type CheckpointState,
  type CommitRecord,
  type TensorRecord,
} from './checkpoint-format.js';
import { modelParameters, type Parameter } from '../../families/parameters.js';
import { areaOf, describeRectangle, intersect, wholeOf, type Rectangle } from '../../model/parameters/rectangle.js';
import { readHeaderOf } from './shard-header.js';
import { isFloatDtype, toFloat32, type FloatDtype } from '../files/safetensors-convert.js';
import { DTYPE_BYTES, type TensorEntry } from '../files/safetensors-header.js';

/** How much is converted at once where a piece is not read straight into place. */
const SCRATCH_BYTES = 16 << 20;

interface Shard {
  readonly file: CheckedFile;
  readonly entries: ReadonlyMap<string, TensorEntry>;
}

/** Where a file of a checkpoint is: all of a path, or what begins at `start` of one. */
export interface FilePlace {
  readonly path: string;
  readonly start?: number;
}

/** A committed checkpoint, open for reading. Any rectangle of any tensor can be read, whatever layout wrote it. */
export class Checkpoint {
  readonly folder: string;
  readonly commit: CommitRecord;
  readonly index: CheckpointIndex;
  readonly state: CheckpointState;
  readonly #shards = new Map<string, Promise<Shard>>();
  readonly #placeOf: (file: string) => FilePlace;

  private constructor(folder: string, records: CheckpointRecords, placeOf: (file: string) => FilePlace) {
    this.folder = folder;
    this.#placeOf = placeOf;
    this.commit = records.commit;
    this.index = records.index;
    this.state = records.state;
  }

  /** @throws MbridgeError exit 7 naming the file that is missing or damaged */
  static async open(folder: string): Promise<Checkpoint> {
    return new Checkpoint(folder, await readRecords(folder), (file) => ({ path: join(folder, file) }));
  }

  /**
   * One whose files lie elsewhere than in a folder.
   * @param name what stands for the folder in messages
   */
  static of(name: string, records: CheckpointRecords, placeOf: (file: string) => FilePlace): Checkpoint {
    return new Checkpoint(name, records, placeOf);
  }

  /** Without, it is imported weights. */
  get hasOptimizer(): boolean {
    return this.state.optimizer !== null;
  }

  has(tensor: string): boolean {
    return this.index.tensors[tensor] !== undefined;
  }

  /** What the model gives for each token. */
  get head(): HeadKind {
    return this.state.head ?? 'language';
  }

  get adapters(): Adapters | null {
    return this.state.adapters ?? null;
  }

  tensor(name: string): TensorRecord {
    const record = this.index.tensors[name];
    if (record !== undefined) return record;
    throw badCheckpoint('MODEL', join(this.folder, INDEX_FILE), `has no tensor ${name}`, OTHER_MODEL, { tensor: name });
  }

  /**
   * Refuses a checkpoint of another model, by its head, and its tensors' names and shapes. Reads nothing more.
   * @param heads those that may be read
   */
  check(shape: ModelShape, heads: readonly HeadKind[]): void {
    if (!heads.includes(this.head)) {
      const found = `is of a ${this.head} model, and a ${heads.join(' or ')} model is read`;
      const hint = 'name a checkpoint of that, or give the model the head of this one (`head` of openRun)';
      throw badCheckpoint('MODEL', join(this.folder, STATE_FILE), found, hint);
    }
    const path = join(this.folder, INDEX_FILE);
    for (const { name, shape: expected } of this.#parameters(shape)) {
      const { shape: found, dtype } = this.tensor(name);
      // Of a parameter that was frozen there are no moments.
      const moments = MOMENTS.map((kind) => tensorName(kind, name));
      if (this.hasOptimizer && moments.some((moment) => this.has(moment)))
        for (const each of moments) this.tensor(each);
      if (found.join() !== expected.join()) {
        const text = `${name} is [${found.join(', ')}], the model expects [${expected.join(', ')}]`;
        throw badCheckpoint('MODEL', path, text, OTHER_MODEL, { tensor: name, expected, found });
      }
      if (!isFloatDtype(dtype)) throw badCheckpoint('DTYPE', path, `${name} is ${dtype}, expected floats`, OTHER_MODEL);
    }
    const layers = Object.keys(this.index.tensors).filter((name) =>
      name.startsWith(`model.layers.${shape.numLayers}.`),
    );
    if (layers.length > 0) {
      const text = `has more layers (${layers[0]}) than the model's ${shape.numLayers}`;
      throw badCheckpoint('MODEL', path, text, OTHER_MODEL);
    }
  }

  #parameters(shape: ModelShape): Parameter[] {
    const own = this.adapters === null ? [] : adapterParameters(shape, this.adapters);
    return [...modelParameters(shape, this.head), ...own];
  }

  /** Reads a rectangle of a tensor of floats as float32, row after row, checking what is read. */
  async readFloats(name: string, wanted: Rectangle, dst: Float32Array): Promise<void> {
    if (dst.length !== areaOf(wanted)) throw new RangeError(`${dst.length} elements for ${describeRectangle(wanted)}`);
    const { dtype } = this.tensor(name);
    if (!isFloatDtype(dtype))
      throw badCheckpoint('DTYPE', this.folder, `${name} is ${dtype}, expected floats`, OTHER_MODEL);
    await this.#transfer(name, wanted, async (shard, entry, part, piece) => {
      const width = wanted.cols.count;
      const straight = dtype === 'F32' && part.cols.count === piece.cols.count && part.cols.count === width;
      const at = (part.rows.start - wanted.rows.start) * width + (part.cols.start - wanted.cols.start);
      if (straight) {
        const target = dst.subarray(at, at + areaOf(part));
        const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
        await shard.file.read(bytes, entry.offset + (part.rows.start - piece.rows.start) * width * 4);
        return;
      }
      await this.#readThroughScratch(shard.file, entry, dtype, part, piece, (row, values, cols) => {
        dst.set(values.subarray(0, cols), at + (row - part.rows.start) * width);
      });
    });
  }

  /** Yields the stored bytes of a rectangle (a whole tensor by default), some MiB at a time, each in fresh memory. */
  async *bytesOf(name: string, area: Rectangle = wholeOf(this.tensor(name).shape)): AsyncGenerator<Uint8Array> {
    const rowBytes = area.cols.count * DTYPE_BYTES[this.tensor(name).dtype];
    const atOnce = Math.max(1, Math.floor(SCRATCH_BYTES / rowBytes));
    for (let done = 0; done < area.rows.count; done += atOnce) {
      const rows = { start: area.rows.start + done, count: Math.min(atOnce, area.rows.count - done) };
      const bytes = new Uint8Array(rows.count * rowBytes);
      await this.#readBytes(name, { rows, cols: area.cols }, bytes);
      yield bytes;
    }
  }

  /** As {@link readFloats}, but the stored bytes whatever the dtype. */
  async #readBytes(name: string, wanted: Rectangle, dst: Uint8Array): Promise<void> {
    const unit = DTYPE_BYTES[this.tensor(name).dtype];
    const width = wanted.cols.count * unit;
    await this.#transfer(name, wanted, async (shard, entry, part, piece) => {
      const pieceWidth = piece.cols.count * unit;
      const count = part.cols.count * unit;
      const first = entry.offset + (part.rows.start - piece.rows.start) * pieceWidth;
      const at = (part.rows.start - wanted.rows.start) * width + (part.cols.start - wanted.cols.start) * unit;
      if (count === pieceWidth && count === width) {
        await shard.file.read(dst.subarray(at, at + part.rows.count * width), first);
        return;
      }
      const rows = new Uint8Array(part.rows.count * pieceWidth);
      await shard.file.read(rows, first);
      const from = (part.cols.start - piece.cols.start) * unit;
      for (let r = 0; r < part.rows.count; r++) {
        dst.set(rows.subarray(r * pieceWidth + from, r * pieceWidth + from + count), at + r * width);
      }
    });
  }

  /** Reads every file once against its checksums. */
  async verifyFiles(onFile: (name: string, bytes: number) => void = () => undefined): Promise<void> {
    for (const [name, record] of Object.entries(this.commit.files)) {
      const file = await CheckedFile.open(join(this.folder, name), record, undefined, nativeSum);
      try {
        await file.verify();
      } finally {
        await file.close();
      }
      onFile(name, record.bytes);
    }
    for (const name of new Set(Object.values(this.index.tensors).flatMap((t) => t.pieces.map((p) => p.file)))) {
      await this.#shard(name);
    }
    for (const [name, record] of Object.entries(this.index.tensors)) {
      for (const piece of this.#piecesOf(record))
        this.#entryOf(await this.#shard(piece.file), name, record, piece.area);
    }
  }

  async close(): Promise<void> {
    for (const shard of this.#shards.values()) {
      await shard.then(
        ({ file }) => file.close(),
        () => undefined,
      );
    }
    this.#shards.clear();
  }

  async #transfer(
    name: string,
    wanted: Rectangle,
    copy: (shard: Shard, entry: TensorEntry, part: Rectangle, piece: Rectangle) => Promise<void>,
  ): Promise<void> {
    const record = this.tensor(name);
    for (const { file, area } of this.#piecesOf(record)) {
      const part = intersect(area, wanted);
      if (part === null) continue;
      const shard = await this.#shard(file);
      await copy(shard, this.#entryOf(shard, name, record, area), part, area);
    }
  }

  #piecesOf(record: TensorRecord): { file: string; area: Rectangle }[] {
    return record.pieces.map(({ file, rows, cols }) => ({
      file,
      area: { rows: { start: rows[0], count: rows[1] }, cols: { start: cols[0], count: cols[1] } },
    }));
  }

  async #readThroughScratch(
    file: CheckedFile,
    entry: TensorEntry,
    dtype: FloatDtype,
    part: Rectangle,
    piece: Rectangle,
    put: (row: number, values: Float32Array, cols: number) => void,
  ): Promise<void> {
    const width = piece.cols.count;
    const rowBytes = width * DTYPE_BYTES[dtype];
    const atOnce = Math.min(part.rows.count, Math.max(1, Math.floor(SCRATCH_BYTES / rowBytes)));
    const bytes = new Uint8Array(atOnce * rowBytes);
    const floats = new Float32Array(atOnce * width);
    const skip = part.cols.start - piece.cols.start;
    for (let done = 0; done < part.rows.count; done += atOnce) {
      const rows = Math.min(atOnce, part.rows.count - done);
      const first = part.rows.start + done;
      const chunk = bytes.subarray(0, rows * rowBytes);
      await file.read(chunk, entry.offset + (first - piece.rows.start) * rowBytes);
      toFloat32(dtype, chunk, floats.subarray(0, rows * width));
      for (let r = 0; r < rows; r++) put(first + r, floats.subarray(r * width + skip), part.cols.count);
    }
  }

  #entryOf(shard: Shard, tensor: string, { dtype, shape }: TensorRecord, piece: Rectangle): TensorEntry {
    const name = pieceName(tensor, shape, piece);
    const entry = shard.entries.get(name);
    if (entry !== undefined && entry.dtype === dtype && entry.shape.join() === pieceShape(shape, piece).join())
      return entry;
    const found =
      entry === undefined ? `has no piece ${name}` : `holds ${name} as ${entry.dtype} [${entry.shape.join(', ')}]`;
    throw badCheckpoint('SHARD', shard.file.path, found, 'shard and index belong to different checkpoints');
  }

  #shard(name: string): Promise<Shard> {
    let shard = this.#shards.get(name);
    if (shard === undefined) this.#shards.set(name, (shard = this.#openShard(name)));
    return shard;
  }

  async #openShard(name: string): Promise<Shard> {
    const { path, start } = this.#placeOf(name);
    const record = this.commit.files[name];
    if (record === undefined) throw badCheckpoint('INDEX', path, 'was not committed', OTHER_MODEL);
    const file = await CheckedFile.open(path, record, start, nativeSum);
    try {
      return { file, entries: await readHeaderOf(file) };
    } catch (error) {
      await file.close();
      throw error;
    }
  }
}

/** In a thread of its own: the thread of a run would take longer for it than for reading. */
async function nativeSum(block: Uint8Array): Promise<number> {
  const [sum] = await loadBinding().blockSums(block, block.length);
  return sum as number;
}

const OTHER_MODEL = 'the checkpoint belongs to another model than the configuration';
