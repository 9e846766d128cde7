import { closeSync, constants, fstatSync, openSync, readSync, statSync, type Stats } from 'node:fs';
import { badUtf8At } from './utf8.js';

/** A path that cannot be read as a file: why, in our words or the system's, and the system's code where it has one. */
export class UnreadableFile extends Error {
  readonly reason: string;
  readonly errno: string | undefined;

  constructor(path: string, reason: string, errno?: string, cause?: unknown) {
    super(`${path}: ${reason}`, { cause });
    this.reason = reason;
    this.errno = errno;
  }
}

/**
 * Opens a regular file for reading. A folder, a pipe, a socket or a device is refused without waiting for it.
 * @throws UnreadableFile
 */
export function openRegularFile(path: string): { fd: number; bytes: number } {
  let fd: number;
  try {
    refuseOthers(path, statSync(path)); // a device may act when it is opened
    // What it was may have been replaced since: a pipe without a writer is never waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (cause instanceof UnreadableFile) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new UnreadableFile(path, message, code, cause);
  }
  try {
    const stat = fstatSync(fd);
    refuseOthers(path, stat);
    return { fd, bytes: stat.size };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function refuseOthers(path: string, stat: Stats): void {
  if (stat.isFile()) return;
  const kinds: readonly [boolean, string][] = [
    [stat.isDirectory(), 'is a folder'],
    [stat.isFIFO(), 'is a pipe'],
    [stat.isSocket(), 'is a socket'],
  ];
  const kind = kinds.find(([is]) => is)?.[1] ?? 'is a device';
  throw new UnreadableFile(path, `${kind}, not a file`, stat.isDirectory() ? 'EISDIR' : undefined);
}

/**
 * A file that people write: the text of a regular file of at most `limit` bytes in UTF-8, without a byte-order mark.
 * @throws UnreadableFile
 */
export function readTextFile(path: string, limit: number): string {
  const bytes = readBytes(path, limit);
  const bad = badUtf8At(bytes);
  if (bad >= 0) {
    const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const found = `0x${(bytes[bad] as number).toString(16)}`;
    throw new UnreadableFile(path, utf16 ? 'is UTF-16, not UTF-8' : `is not UTF-8 at byte ${bad} (${found})`);
  }
  const text = bytes.toString('utf8');
  return text.startsWith('\uFEFF') ? text.slice(1) : text;
}

function readBytes(path: string, limit: number): Buffer {
  const { fd, bytes } = openRegularFile(path);
  try {
    if (bytes > limit) throw new UnreadableFile(path, `has ${bytes} bytes, at most ${limit} are expected here`);
    // The size is not asked: files of /proc have none.
    const parts: Buffer[] = [];
    for (let left = limit; left > 0;) {
      const part = Buffer.alloc(Math.min(left, 65_536));
      const got = readSync(fd, part, 0, part.length, null);
      if (got === 0) break;
      parts.push(part.subarray(0, got));
      left -= got;
    }
    return Buffer.concat(parts);
  } catch (cause) {
    if (cause instanceof UnreadableFile) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new UnreadableFile(path, message, code, cause);
  } finally {
    closeSync(fd);
  }
}
