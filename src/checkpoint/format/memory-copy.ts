import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { crc32 } from '../../base/crc32.js';
import { BLOCK_BYTES, recordChecksum } from '../files/block-checksums.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { checkIndex } from './checkpoint-files.js';
import { Checkpoint, type FilePlace } from './checkpoint.js';
import { FORMAT, VERSION, type CheckpointState } from './checkpoint-format.js';
import { mergeIndex, type Contribution } from './commit.js';

/**
 * A rank's copies of its state in memory: two, that are written in turn, so that one is whole while the other is being
 * written. Each has a header of a page, the files that a checkpoint of the rank would have, and a record of them. A
 * copy without a sound header is none: the header is cleared first of all, and written last.
 */
export interface MemoryLayout {
  /** In all; what follows `reserved` takes memory only where it is written. */
  readonly bytes: number;
  readonly reserved: number;
  readonly slots: readonly [MemorySlot, MemorySlot];
}

/** Where the parts of a copy begin. */
export interface MemorySlot {
  readonly header: number;
  /** By the name of the file. */
  readonly files: ReadonlyMap<string, { readonly position: number; readonly bytes: number }>;
  readonly record: number;
}

/** What a rank says of its copy of an update. */
export interface MemoryRecord extends Contribution {
  /** Where its files begin. */
  readonly positions: Readonly<Record<string, number>>;
  /** The first rank's. */
  readonly state: CheckpointState | null;
}

const PAGE = 4096;
/** Room for a record. */
const RECORD_BYTES = 2 ** 30;
const MAGIC = Buffer.from('mbmemory');
/** Magic, update, position and length of the record, its CRC-32, and that of these bytes. */
const HEADER_BYTES = 40;

export function layOutMemory(files: readonly { readonly file: string; readonly bytes: number }[]): MemoryLayout {
  let end = 2 * PAGE;
  const place = (): MemorySlot['files'] =>
    new Map(
      files.map(({ file, bytes }) => {
        const position = end;
        end += Math.ceil(bytes / PAGE) * PAGE;
        return [file, { position, bytes }];
      }),
    );
  const [first, second] = [place(), place()];
  const slots = [
    { header: 0, files: first, record: end },
    { header: PAGE, files: second, record: end + RECORD_BYTES },
  ] as const;
  return { bytes: end + 2 * RECORD_BYTES, reserved: end, slots };
}

/** From now on the slot holds no copy. */
export function clearHeader(fd: number, { header }: MemorySlot): void {
  writeSync(fd, new Uint8Array(HEADER_BYTES), 0, HEADER_BYTES, header);
}

/** Makes what the slot's files hold the copy of update `step`. */
export function sealCopy(fd: number, { header, record }: MemorySlot, step: number, content: MemoryRecord): void {
  const json = Buffer.from(JSON.stringify(content));
  if (json.length > RECORD_BYTES) throw new RangeError(`a record of ${json.length} bytes`);
  for (let done = 0; done < json.length;) done += writeSync(fd, json, done, json.length - done, record + done);
  const head = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(head);
  head.writeDoubleLE(step, 8);
  head.writeDoubleLE(record, 16);
  head.writeDoubleLE(json.length, 24);
  head.writeUInt32LE(crc32(json), 32);
  head.writeUInt32LE(crc32(head.subarray(0, 36)), 36);
  writeSync(fd, head, 0, HEADER_BYTES, header);
}

/** Which slot of an open memory holds the copy of an update, whose record is not looked at; undefined where none does. */
export function slotOf(fd: number, step: number): 0 | 1 | undefined {
  return ([0, 1] as const).find((slot) => readHeader(fd, slot * PAGE)?.step === step);
}

/**
 * The copies of update `step` as a checkpoint. What is read of their files is checked as it is read.
 * @param paths a memory of each rank
 * @throws MbridgeError exit 7 where one of them has no such copy, or it is damaged
 */
export function openCopies(paths: readonly (string | null)[], step: number): Checkpoint {
  const name = `the copy of update ${step} in memory`;
  const ranks = paths.map((path, rank) => readCopy(`${name}, rank ${rank}`, path, step));
  const state = ranks[0]?.record.state ?? null;
  if (state?.step !== step) throw badCheckpoint('COMMIT', name, 'has no training state', HINT);
  const files = Object.fromEntries(ranks.flatMap(({ record }) => Object.entries(record.files)));
  const places = new Map<string, FilePlace>(
    ranks.flatMap(({ path, record }) =>
      Object.entries(record.positions).map(([file, start]) => [file, { path, start }] as const),
    ),
  );
  const index = mergeIndex(ranks.map(({ record }) => record));
  checkIndex(name, index, { files });
  const facts = { format: FORMAT, version: VERSION, block_bytes: BLOCK_BYTES } as const;
  const commit = { ...facts, files, files_crc32: recordChecksum(files) };
  return Checkpoint.of(name, { commit, index, state }, (file) => {
    const found = places.get(file);
    if (found === undefined) throw badCheckpoint('COMMIT', name, `does not say where ${file} is`, HINT);
    return found;
  });
}

const HINT = 'the run goes on from its last checkpoint on disk';

function readCopy(name: string, path: string | null, step: number): { path: string; record: MemoryRecord } {
  if (path === null) throw badCheckpoint('NONE', name, 'is not there', HINT);
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    const slot = slotOf(fd, step);
    if (slot === undefined) throw badCheckpoint('NOT_COMMITTED', name, 'is not whole', HINT);
    const { position, bytes, crc } = readHeader(fd, slot * PAGE) as Header;
    const json = read(fd, position, bytes);
    if (json?.length !== bytes || crc32(json) !== crc) {
      throw badCheckpoint('CHECKSUM', name, 'has a record that is not what was written', HINT);
    }
    return { path, record: JSON.parse(json.toString()) as MemoryRecord };
  } catch (cause) {
    throw checkpointIoError('read', name, cause);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

interface Header {
  readonly step: number;
  readonly position: number;
  readonly bytes: number;
  readonly crc: number;
}

function readHeader(fd: number, at: number): Header | undefined {
  const head = read(fd, at, HEADER_BYTES);
  if (head?.length !== HEADER_BYTES || !head.subarray(0, 8).equals(MAGIC)) return undefined;
  if (crc32(head.subarray(0, 36)) !== head.readUInt32LE(36)) return undefined;
  return {
    step: head.readDoubleLE(8),
    position: head.readDoubleLE(16),
    bytes: head.readDoubleLE(24),
    crc: head.readUInt32LE(32),
  };
}

/** What there is of these bytes; undefined where they are beyond the end. */
function read(fd: number, position: number, bytes: number): Buffer | undefined {
  if (position + bytes > fstatSync(fd).size) return undefined;
  const out = Buffer.alloc(bytes);
  for (let done = 0; done < bytes;) {
    const got = readSync(fd, out, done, bytes - done, position + done);
    if (got === 0) return undefined;
    done += got;
  }
  return out;
}
