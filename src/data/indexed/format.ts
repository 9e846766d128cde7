import { MbridgeError } from '../../base/errors.js';
import { systemFault } from '../../base/system-error.js';

/** How the tokens of a pair lie in PREFIX.bin: Megatron's codes of the types that hold ids. */
export const DTYPES = { uint16: { code: 8, bytes: 2 }, int32: { code: 4, bytes: 4 } } as const;

export type TokenDtype = keyof typeof DTYPES;

/** The first 9 bytes of PREFIX.idx, and the version that follows. */
export const MAGIC = Buffer.from('MMIDIDX\0\0', 'latin1');
export const VERSION = 1;
/** Magic, version (u64), dtype (u8), sequences (u64), documents (u64). */
export const HEADER_BYTES = 34;

/** As Megatron chooses: 16 bits where every id fits. */
export function dtypeFor(vocabSize: number): TokenDtype {
  return vocabSize < 65500 ? 'uint16' : 'int32';
}

/** Types that a file's bytes are seen through. */
export function arrayOf(dtype: TokenDtype): typeof Uint16Array | typeof Int32Array {
  return dtype === 'uint16' ? Uint16Array : Int32Array;
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
