import { MbridgeError } from '../../base/errors.js';
import { systemFault } from '../../base/system-error.js';

/** A checkpoint file whose content is wrong (exit 7): `MB_SAFETENSORS_<code>`. */
export function badFile(code: string, file: string, found: string, hint: string, details = {}): MbridgeError {
  // What was found may quote a damaged file: no control characters for a terminal, no endless line.
  const shown = found.replace(/\p{Cc}+/gu, '?').slice(0, 400);
  return new MbridgeError('io', `MB_SAFETENSORS_${code}`, `${file}: ${shown}`, { hint, details: { file, ...details } });
}

/** A checkpoint file that the system would not open, read or write (exit 7, or 4 for a limit): `<family>_<ACTION>`. */
export function fileError(
  action: 'open' | 'read' | 'write',
  file: string,
  cause: unknown,
  family = 'MB_SAFETENSORS',
): MbridgeError {
  const fault = systemFault(cause);
  const reason = fault?.reason ?? (cause instanceof Error ? cause.message : String(cause));
  const message = `cannot ${action} ${file}: ${reason}`;
  return new MbridgeError(fault?.kind ?? 'io', `${family}_${action.toUpperCase()}`, message, {
    hint: fault?.hint ?? 'check the disk',
    cause,
    details: { file, errno: fault?.errno ?? 'unknown error' },
  });
}
