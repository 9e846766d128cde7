import { closeSync, constants, fstatSync, openSync, readSync, statSync, type Stats } from 'node:fs';
import { badUtf8At } from './utf8.js';

/** A path that cannot be read as a file. The message says why, in our words or the system's, and does not name it. */
export class UnreadableFile extends Error {
  /** The system's, such as `ENOENT`. */
  readonly code: string | undefined;

  constructor(reason: string, cause?: unknown) {
    super(reason, { cause });
    this.code = (cause as NodeJS.ErrnoException | undefined)?.code;
  }

  /** For what the system has thrown. */
  static from(cause: unknown): UnreadableFile {
    if (cause instanceof UnreadableFile) return cause;
    return new UnreadableFile(cause instanceof Error ? cause.message : String(cause), cause);
  }
}

/** To open what should be a file: a pipe without a writer is never waited for. */
export const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

/**
 * Opens a regular file for reading. A folder, a pipe, a socket or a device is refused without waiting for it.
 * @throws UnreadableFile
 */
export function openRegularFile(path: string): { fd: number; bytes: number } {
  let fd: number;
  try {
    refuseOthers(statSync(path)); // a device may act when it is opened
    fd = openSync(path, READ_FLAGS); // what it was may have been replaced since
  } catch (cause) {
    throw UnreadableFile.from(cause);
  }
  try {
    const stat = fstatSync(fd);
    refuseOthers(stat);
    return { fd, bytes: stat.size };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function refuseOthers(stat: Stats): void {
  if (stat.isFile()) return;
  const kinds: readonly [boolean, string][] = [
    [stat.isDirectory(), 'is a folder'],
    [stat.isFIFO(), 'is a pipe'],
    [stat.isSocket(), 'is a socket'],
  ];
  const kind = kinds.find(([is]) => is)?.[1] ?? 'is a device';
  throw new UnreadableFile(`${kind}, not a file`);
}

/**
 * A file that people write: the text of a regular file of at most `limit` bytes in UTF-8, without a byte-order mark.
 * @throws UnreadableFile
 */
export function readTextFile(path: string, limit: number): string {
  const bytes = readFileBytes(path, limit);
  const bad = badUtf8At(bytes);
  if (bad >= 0) {
    const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const found = `0x${(bytes[bad] as number).toString(16)}`;
    throw new UnreadableFile(utf16 ? 'is UTF-16, not UTF-8' : `is not UTF-8 at byte ${bad} (${found})`);
  }
  const text = bytes.toString('utf8');
  return text.startsWith('\uFEFF') ? text.slice(1) : text;
}

/** The content of a regular file of at most `limit` bytes. @throws UnreadableFile */
export function readFileBytes(path: string, limit: number): Buffer {
  const { fd, bytes } = openRegularFile(path);
  try {
    if (bytes > limit) throw new UnreadableFile(`has ${bytes} bytes, at most ${limit} are expected here`);
    // The size is not asked: files of /proc have none.
    const parts: Buffer[] = [];
    for (let left = limit; left > 0;) {
      const part = Buffer.allocUnsafe(Math.min(left, 1 << 20));
      const got = readSync(fd, part, 0, part.length, null);
      if (got === 0) break;
      parts.push(part.subarray(0, got));
      left -= got;
    }
    return Buffer.concat(parts);
  } catch (cause) {
    throw UnreadableFile.from(cause);
  } finally {
    closeSync(fd);
  }
}
