import { MbridgeError } from '../../base/errors.js';
import { fileError } from './safetensors-error.js';

/** A checkpoint whose content is wrong (exit 7): `MB_CHECKPOINT_<code>`. */
export function badCheckpoint(code: string, file: string, found: string, hint: string, details = {}): MbridgeError {
  const shown = found.replace(/\p{Cc}+/gu, '?').slice(0, 400);
  return new MbridgeError('io', `MB_CHECKPOINT_${code}`, `${file}: ${shown}`, { hint, details: { file, ...details } });
}

/** A file or folder of a checkpoint that the system would not open, read or write (exit 7). */
export function checkpointIoError(action: 'open' | 'read' | 'write', file: string, cause: unknown): MbridgeError {
  return cause instanceof MbridgeError ? cause : fileError(action, file, cause, 'MB_CHECKPOINT');
}
