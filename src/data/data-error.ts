import { MbridgeError } from '../base/errors.js';
import { UnreadableFile } from '../base/regular-file.js';
import { systemFault } from '../base/system-error.js';

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

/** A data file that cannot be opened or read (exit 7). @param option where its path was given */
export function unreadable(path: string, cause: unknown, option = 'dataset.path'): MbridgeError {
  const fault = systemFault(cause);
  const reason = fault?.reason ?? (cause instanceof Error ? cause.message : String(cause));
  const limit = fault !== undefined && (fault.kind === 'environment' || fault.errno === 'EIO');
  const place = `check ${option}; a relative path starts at the current directory (${process.cwd()})`;
  const special = `${option} must name a regular file: data is read at any place, and more than once`;
  const hint = fault === undefined && cause instanceof UnreadableFile ? special : place;
  return new MbridgeError(fault?.kind ?? 'io', 'MB_DATA_UNREADABLE', `cannot read data file ${path}: ${reason}`, {
    hint: limit ? fault.hint : hint,
    details: { path, errno: fault?.errno ?? 'unknown error' },
    cause,
  });
}
