import { MbridgeError } from '../../base/errors.js';
import { systemFault } from '../../base/system-error.js';

/** The first bytes of an `.idx` file. */
export const MAGIC = 'MMIDIDX\0\0';
export const VERSION = 1;
/** Magic, version (u64), dtype code (u8), number of sequences (u64), number of document entries (u64). */
export const HEADER_BYTES = 34;

/** Types of tokens that are integers, by Megatron's names. */
export const TOKEN_TYPES = {
  uint8: { code: 1, bytes: 1 },
  int8: { code: 2, bytes: 1 },
  int16: { code: 3, bytes: 2 },
  int32: { code: 4, bytes: 4 },
  int64: { code: 5, bytes: 8 },
  uint16: { code: 8, bytes: 2 },
} as const;

export type TokenType = keyof typeof TOKEN_TYPES;

/** What {@link IndexedWriter} writes. */
export type WrittenType = 'uint16' | 'int32';

/** As Megatron chooses: 16 bits where every id fits. */
export function typeFor(vocabSize: number): WrittenType {
  return vocabSize < 65500 ? 'uint16' : 'int32';
}

/** The files of a pair. A prefix is a path without their endings. */
export function pairOf(prefix: string): { readonly idx: string; readonly bin: string } {
  return { idx: `${prefix}.idx`, bin: `${prefix}.bin` };
}

/** A 64-bit integer in two halves of 32, exact up to 2^53. */
export function int64(low: number, high: number): number {
  return (low >>> 0) + high * 2 ** 32;
}

/** A file that cannot be written (exit 7, or 4 for a limit of the process). */
export function writeError(path: string, cause: unknown): unknown {
  const fault = systemFault(cause);
  if (fault === undefined) return cause;
  return new MbridgeError(fault.kind, 'MB_DATA_WRITE', `cannot write ${path}: ${fault.reason}`, {
    hint: fault.hint,
    details: { path, errno: fault.errno },
    cause,
  });
}
