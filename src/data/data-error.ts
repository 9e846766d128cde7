import { MbridgeError } from '../base/errors.js';

/** Bad content of a data file (exit 7). `where` is `file` or `file:line`. */
export function badData(
  code: string,
  where: string,
  found: string,
  hint: string,
  details: Record<string, unknown> = {},
): MbridgeError {
  // What was found may quote the file: no control characters for a terminal, no endless line.
  const shown = found.replace(/\p{Cc}+/gu, '?').slice(0, 400);
  return new MbridgeError('io', code, `${where}: ${shown}`, { hint, details: { where, ...details } });
}

/** A data file that the system would not open or read (exit 7). */
export function unreadable(path: string, cause: unknown): MbridgeError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
  const reasons: Record<string, string> = {
    ENOENT: 'no such file',
    EACCES: 'permission denied',
    EISDIR: 'is a directory, not a file',
    ENOTDIR: 'a part of the path is not a directory',
  };
  const reason = reasons[code] ?? (cause instanceof Error ? cause.message : code);
  return new MbridgeError('io', 'MB_DATA_UNREADABLE', `cannot read data file ${path}: ${reason}`, {
    hint: 'check dataset.path; a relative path starts at the current directory',
    details: { path, errno: code },
    cause,
  });
}
