import { MbridgeError } from '../../base/errors.js';

/** A checkpoint file whose content is wrong (exit 7): `MB_SAFETENSORS_<code>`. */
export function badFile(code: string, file: string, found: string, hint: string, details = {}): MbridgeError {
  // What was found may quote a damaged file: no control characters for a terminal, no endless line.
  const shown = found.replace(/\p{Cc}+/gu, '?').slice(0, 400);
  return new MbridgeError('io', `MB_SAFETENSORS_${code}`, `${file}: ${shown}`, { hint, details: { file, ...details } });
}

/** A checkpoint file that the system would not open, read or write (exit 7): `<family>_<ACTION>`. */
export function fileError(
  action: 'open' | 'read' | 'write',
  file: string,
  cause: unknown,
  family = 'MB_SAFETENSORS',
): MbridgeError {
  const errno = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
  const known: Record<string, [reason: string, hint: string]> = {
    ENOENT: ['no such file or folder', 'check the path; a relative one starts at the current directory'],
    EACCES: ['permission denied', 'give this user the right to it'],
    EPERM: ['not permitted', 'give this user the right to it'],
    ENOTDIR: ['a part of the path is a file, not a folder', 'check the path'],
    EISDIR: ['is a folder, not a file', 'name the file itself'],
    EEXIST: ['exists already', 'choose another place'],
    ENOTEMPTY: ['another run wrote there at the same time', 'give each run a folder of its own to save in'],
    ENOSPC: ['no space left on the disk', 'free some space or choose another disk'],
    EDQUOT: ['the disk quota is used up', 'free some space or choose another disk'],
    EFBIG: ['larger than this process may write', 'raise the limit of file sizes (ulimit -f)'],
    EROFS: ['the file system is read-only', 'choose another place'],
  };
  const [reason, hint] = known[errno] ?? [cause instanceof Error ? cause.message : errno, 'check the disk'];
  return new MbridgeError('io', `${family}_${action.toUpperCase()}`, `cannot ${action} ${file}: ${reason}`, {
    hint,
    cause,
    details: { file, errno },
  });
}
