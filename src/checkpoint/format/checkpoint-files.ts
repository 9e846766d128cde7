import { join } from 'node:path';
import { z } from 'zod';
import { readFileBytes } from '../../base/regular-file.js';
import { BLOCK_BYTES, checksumsOf, recordChecksum } from '../files/block-checksums.js';
import { badCheckpoint, checkpointIoError } from '../files/checkpoint-error.js';
import { errnoOf } from '../../base/system-error.js';
import {
  COMMIT_FILE,
  FORMAT,
  INDEX_FILE,
  STATE_FILE,
  VERSION,
  type CheckpointIndex,
  type CheckpointState,
  type CommitRecord,
} from './checkpoint-format.js';
import { tilingProblem, wholeOf } from '../../model/parameters/rectangle.js';
import { DTYPE_BYTES, type SafetensorsDtype } from '../files/safetensors-header.js';

const HINT = 'the file is damaged; copy the checkpoint again, or use an earlier one';
const size = z.int().min(0);
const header = { format: z.literal(FORMAT), version: z.int() };
const number = z.union([z.number(), z.string()]);
/** A file lies in its checkpoint's folder: nothing in a copied file leads elsewhere. */
const fileName = z.string().regex(/^(hf\/)?[\w-][\w.-]*$/);

const commitSchema = z.object({
  ...header,
  block_bytes: z.literal(BLOCK_BYTES),
  files: z.record(fileName, z.object({ bytes: size, crc32: z.array(z.string()) })),
  files_crc32: z.string(),
});

const indexSchema = z.object({
  ...header,
  tensors: z.record(
    z.string(),
    z.object({
      dtype: z.enum(Object.keys(DTYPE_BYTES) as [SafetensorsDtype, ...SafetensorsDtype[]]),
      shape: z.array(size),
      pieces: z.array(z.object({ file: fileName, rows: z.tuple([size, size]), cols: z.tuple([size, size]) })),
    }),
  ),
});

const stateSchema = z.object({
  ...header,
  step: size,
  consumed_samples: size,
  model: z.record(z.string(), z.unknown()),
  head: z.enum(['language', 'value']).optional(),
  adapters: z.object({ rank: size, alpha: z.number(), modules: z.array(z.string()) }).optional(),
  precision: z.enum(['fp32', 'bf16_mixed', 'fp8_mixed']).nullable(),
  optimizer: z
    .object({ name: z.literal('adamw'), updates: number, lr: number, skipped_in_row: number, scalars: z.array(number) })
    .nullable(),
  rng: z.object({ seed: z.number(), data_seed: z.number() }).nullable(),
  layout: z.record(z.string(), z.union([z.number(), z.boolean()])).nullable(),
  versions: z.record(z.string(), z.string()),
  config: z.record(z.string(), z.unknown()).nullable(),
  lineage: z.string().optional(),
  data: z
    .object({
      settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
      files: z.array(z.object({ path: z.string(), bytes: size, sha256: z.string() })),
    })
    .nullable()
    .optional(),
});

/** The files that describe a checkpoint, each checked against the commit record's checksum before it is parsed. */
export interface CheckpointRecords {
  readonly commit: CommitRecord;
  readonly index: CheckpointIndex;
  readonly state: CheckpointState;
}

/** @throws MbridgeError exit 7 naming the file that is missing, damaged, or of another version */
export async function readRecords(folder: string): Promise<CheckpointRecords> {
  const commitPath = join(folder, COMMIT_FILE);
  const commit = parse(commitPath, readBytes(commitPath), commitSchema);
  if (recordChecksum(commit.files) !== commit.files_crc32) {
    throw badCheckpoint('CHECKSUM', commitPath, 'is not what was written (its checksum differs)', HINT);
  }
  const read = async <T>(name: string, schema: z.ZodType<T>): Promise<T> => {
    const path = join(folder, name);
    const bytes = readBytes(path);
    const record = commit.files[name];
    if (record === undefined) throw badCheckpoint('COMMIT', commitPath, `does not list ${name}`, HINT);
    if (bytes.length !== record.bytes) {
      throw badCheckpoint('SIZE', path, `has ${bytes.length} bytes, ${record.bytes} were written`, HINT);
    }
    if (checksumsOf(bytes).crc32.join() !== record.crc32.join()) {
      throw badCheckpoint('CHECKSUM', path, 'is not what was written (its checksum differs)', HINT);
    }
    return parse(path, bytes, schema);
  };
  const index = await read(INDEX_FILE, indexSchema);
  const state = (await read(STATE_FILE, stateSchema)) as unknown as CheckpointState;
  checkIndex(join(folder, INDEX_FILE), index, commit);
  return { commit, index, state };
}

/** The state of a checkpoint that need not be sound otherwise; undefined where it cannot be read. */
export async function readStateAlone(folder: string): Promise<CheckpointState | undefined> {
  const path = join(folder, STATE_FILE);
  try {
    return parse(path, readBytes(path), stateSchema) as unknown as CheckpointState;
  } catch {
    return undefined;
  }
}

/** Every tensor must be there whole, once, in files that were committed. */
export function checkIndex(path: string, index: CheckpointIndex, commit: Pick<CommitRecord, 'files'>): void {
  for (const [name, { shape, pieces }] of Object.entries(index.tensors)) {
    const stray = pieces.find(({ file }) => commit.files[file] === undefined);
    if (stray !== undefined)
      throw badCheckpoint('INDEX', path, `${name} is in ${stray.file}, which was not committed`, HINT);
    const rectangles = pieces.map(({ rows, cols }) => ({
      rows: { start: rows[0], count: rows[1] },
      cols: { start: cols[0], count: cols[1] },
    }));
    const problem = tilingProblem(wholeOf(shape), rectangles);
    if (problem !== undefined) throw badCheckpoint('INDEX', path, `${name}: ${problem}`, HINT);
  }
}

/** Of a record: a gigabyte lists the pieces of millions of tensors. */
const MOST_BYTES = 1 << 30;

function readBytes(path: string): Uint8Array {
  try {
    return readFileBytes(path, MOST_BYTES);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw checkpointIoError('read', path, cause);
    throw badCheckpoint('MISSING_FILE', path, 'is missing from its checkpoint', 'copy the whole folder again');
  }
}

function parse<T>(path: string, bytes: Uint8Array, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw badCheckpoint('JSON', path, `is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, HINT);
  }
  const version = typeof value === 'object' && value !== null && 'version' in value ? value.version : undefined;
  if (typeof version === 'number' && version > VERSION) {
    const hint = 'use the mbridge that wrote it, or a newer one';
    throw badCheckpoint('VERSION', path, `has format version ${version}, this mbridge reads up to ${VERSION}`, hint);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : `${issue.path.join('.')}: `;
  throw badCheckpoint('JSON', path, `${where}${issue?.message ?? 'malformed'}`, HINT);
}
