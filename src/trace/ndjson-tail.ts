import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** Neither through a symbolic link, which may lead out of the run's folder, nor waiting for a pipe. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const NEWLINE = 0x0a;

/** What a file has got since it was read last. */
export interface Added {
  readonly lines: readonly string[];
  /** The file is another one than before, or was cut: the lines are those from its beginning. */
  readonly reset: boolean;
  /** There may be more at once. */
  readonly more: boolean;
}

const NOTHING: Added = { lines: [], reset: false, more: false };

/** Reads a file of lines that grows. A last line without its end is left until that has come. */
export class NdjsonTail {
  readonly #path: string;
  readonly #chunk: number;
  #inode: number | undefined;
  /** Behind the last whole line that was read. */
  #offset = 0;

  /** @param chunk bytes that are read at once; a longer line is left out */
  constructor(path: string, chunk = 1 << 20) {
    this.#path = path;
    this.#chunk = chunk;
  }

  /** A file that is not there, or is no file, has nothing. */
  async read(): Promise<Added> {
    const file = await open(this.#path, FLAGS).catch(() => undefined);
    if (file === undefined) return NOTHING;
    try {
      const stat = await file.stat();
      if (!stat.isFile()) return NOTHING;
      const known = this.#inode;
      const before = Buffer.alloc(1);
      const cut =
        this.#offset > 0 &&
        (known !== stat.ino ||
          stat.size < this.#offset ||
          (await file.read(before, 0, 1, this.#offset - 1)).bytesRead !== 1 ||
          before[0] !== NEWLINE);
      if (cut) this.#offset = 0;
      this.#inode = stat.ino;
      const added = await this.#lines(file, Math.min(this.#chunk, stat.size - this.#offset));
      return { ...added, reset: cut };
    } finally {
      await file.close();
    }
  }

  async #lines(file: Awaited<ReturnType<typeof open>>, bytes: number): Promise<Omit<Added, 'reset'>> {
    if (bytes <= 0) return NOTHING;
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(bytes), 0, bytes, this.#offset);
    const got = buffer.subarray(0, bytesRead);
    const end = got.lastIndexOf(NEWLINE) + 1;
    const full = bytesRead === this.#chunk;
    if (end === 0) {
      if (full) await this.#skipLine(file);
      return { lines: [], more: full };
    }
    this.#offset += end;
    return { lines: got.toString('utf8', 0, end - 1).split('\n'), more: full };
  }

  /** To the end of a line that is too long; where that has not come, it is tried again. */
  async #skipLine(file: Awaited<ReturnType<typeof open>>): Promise<void> {
    const buffer = Buffer.allocUnsafe(this.#chunk);
    for (let at = this.#offset + this.#chunk; ;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      const end = buffer.subarray(0, bytesRead).indexOf(NEWLINE);
      if (end >= 0) {
        this.#offset = at + end + 1;
        return;
      }
      at += bytesRead;
    }
  }
}
