import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from './errors.js';
import { identifyThisProcess, stateOf, type ProcessIdentity, type ProcessState } from './process-identity.js';

/** What a folder is claimed for. A run may log and save in one folder: the kinds do not exclude each other. */
export type ClaimKind = 'run' | 'save';

interface ClaimRecord extends ProcessIdentity {
  /** 16 hexadecimal digits. */
  readonly id: string;
  /** ISO 8601. */
  readonly since: string;
  readonly command: string;
}

/** How often a claim shows that its process lives, and for how long it is believed where the process is not seen. */
const TOUCH_MS = 30_000;
const HIDDEN_MS = 300_000;
/** Others may come and go while a claim is taken. */
const ATTEMPTS = 100;

/**
 * A folder that this process alone may write in: the file `.mbridge-<kind>.claim` in it says who holds it. It is linked
 * to its name, which one process only can do, on a shared file system as well, and goes with the process. One that
 * `kill -9` leaves is taken over by the next, which sees that its process is gone.
 */
export class FolderClaim {
  /** Names this claim among all. */
  readonly id: string;
  readonly #folder: string;
  readonly #file: string;
  readonly #record: ClaimRecord;
  readonly #otherwise: string | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #atExit = (): void => {
    this.release();
  };

  /**
   * @param otherwise what the user may do instead, for the hint
   * @throws MbridgeError MB_FOLDER_CLAIMED (exit 7) that names the holder; what the file system says, where it cannot be written
   */
  constructor(folder: string, kind: ClaimKind, otherwise?: string) {
    this.id = randomBytes(8).toString('hex');
    this.#folder = folder;
    this.#file = join(folder, claimFile(kind));
    this.#otherwise = otherwise;
    const command = process.argv.slice(1).join(' ').slice(0, 300);
    this.#record = { ...identifyThisProcess(), id: this.id, since: new Date().toISOString(), command };
    this.#take();
    process.on('exit', this.#atExit);
    this.#timer = setInterval(() => {
      this.#touch();
    }, TOUCH_MS);
    this.#timer.unref();
  }

  /**
   * Makes sure that the folder is still this process's; a claim that somebody removed is set again.
   * @throws MbridgeError MB_FOLDER_CLAIMED (exit 7) where another process has it now
   */
  check(): void {
    const found = readClaim(this.#file);
    if (found === 'none') this.#take();
    else if (found === 'unreadable' || found.id !== this.id) throw this.#refusal(found);
  }

  /** Gives the folder back. */
  release(): void {
    clearInterval(this.#timer);
    process.off('exit', this.#atExit);
    const found = readClaim(this.#file);
    if (typeof found === 'object' && found.id === this.id) rmSync(this.#file, { force: true });
  }

  #take(): void {
    const own = `${this.#file}.${this.id}`;
    const text = `${JSON.stringify(this.#record, null, 1)}\n`;
    try {
      writeDurably(own, text);
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (place(own, this.#file, text)) return;
        const found = readClaim(this.#file);
        if (found === 'none') continue;
        if (found === 'unreadable' || !isDead(found, this.#record, this.#file, own)) throw this.#refusal(found);
        if (this.#succeed(found, own, text)) return;
      }
      throw this.#refusal('unreadable');
    } finally {
      rmSync(own, { force: true });
    }
  }

  /**
   * Takes a dead process's claim over. Who may, is decided by a file that names the dead claim: one only can make it, and
   * its maker alone may replace that claim. Should the maker die there as well, its own successor is found the same way.
   */
  #succeed(dead: ClaimRecord, own: string, text: string): boolean {
    const markers: string[] = [];
    for (let last = dead; ;) {
      const marker = `${this.#file}.after-${last.id}`;
      markers.push(marker);
      if (place(own, marker, text)) break;
      const found = readClaim(marker);
      if (found === 'none') return false; // its maker is done: look again
      if (found === 'unreadable' || !isDead(found, this.#record, marker, own)) throw this.#refusal(found);
      last = found;
    }
    const now = readClaim(this.#file);
    const unchanged = typeof now === 'object' && now.id === dead.id;
    if (!unchanged) {
      rmSync(markers.at(-1) as string, { force: true });
      return false;
    }
    // A rename onto another name of the same file does nothing, so the marker must not be that name.
    renameSync(own, this.#file);
    for (const marker of markers) rmSync(marker, { force: true });
    rmSync(`${this.#file}.${dead.id}`, { force: true });
    return true;
  }

  #touch(): void {
    try {
      // Its first byte once more, so that the file's time is by the file system's clock.
      const descriptor = openSync(this.#file, 'r+');
      writeSync(descriptor, '{', 0);
      closeSync(descriptor);
    } catch {
      // gone: check() says so
    }
  }

  #refusal(found: ClaimRecord | 'unreadable' | 'none'): MbridgeError {
    const or = this.#otherwise === undefined ? '' : `; or ${this.#otherwise}`;
    if (typeof found === 'string') {
      return new MbridgeError(
        'io',
        'MB_FOLDER_CLAIMED',
        `${this.#folder} is claimed by ${this.#file}, which names nobody`,
        {
          hint: `if nothing uses the folder, remove that file${or}`,
          details: { folder: this.#folder, file: this.#file },
        },
      );
    }
    const { host, pid, since, command } = found;
    const state = stateOf(found, this.#record);
    const who = `process ${pid} on ${host}, since ${since}`;
    const unseen = `this host does not see that process: if it has ended, remove ${this.#file}`;
    return new MbridgeError('io', 'MB_FOLDER_CLAIMED', `${this.#folder} is in use by ${who} (${command})`, {
      hint: `${state === 'live' ? 'wait for it to end, or stop it' : unseen}${or}`,
      details: { folder: this.#folder, file: this.#file, host, pid, since, command },
    });
  }
}

/** The name of the file that claims a folder. */
export function claimFile(kind: ClaimKind): string {
  return `.mbridge-${kind}.claim`;
}

/** Whether a name in a folder is that of a claim, or of one that is being made. */
export function isClaimFile(name: string): boolean {
  return name.startsWith('.mbridge-') && name.includes('.claim');
}

/** Whether a process that lives claims a folder, as far as this machine can tell. */
export function isClaimed(folder: string, kind: ClaimKind): boolean {
  const found = readClaim(join(folder, claimFile(kind)));
  return typeof found === 'object' && stateOf(found, identifyThisProcess()) !== 'dead';
}

/** Removes a claim whose process is known to be gone: what a launcher does for workers that it had to kill. */
export function removeDeadClaim(folder: string, kind: ClaimKind): void {
  const file = join(folder, claimFile(kind));
  const found = readClaim(file);
  if (typeof found === 'object' && stateOf(found, identifyThisProcess()) === 'dead') rmSync(file, { force: true });
}

/** @param own a file that was written just now: the clock of the file system, which may be another host's */
function isDead(found: ClaimRecord, here: ClaimRecord, file: string, own: string): boolean {
  const state: ProcessState = stateOf(found, here);
  if (state !== 'hidden') return state === 'dead';
  const touched = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
  return statSync(own).mtimeMs - touched > HIDDEN_MS;
}

/** Gives the file `own` another name, unless there is a file of that name. */
function place(own: string, name: string, text: string): boolean {
  try {
    linkSync(own, name);
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // Over NFS the first answer may be lost, and the second try finds the name that the first has made.
    if (code === 'EEXIST') return statSync(own).ino === statSync(name, { throwIfNoEntry: false })?.ino;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw cause;
  }
  // A file system without links.
  try {
    writeDurably(name, text);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw cause;
  }
}

function writeDurably(file: string, text: string): void {
  const descriptor = openSync(file, 'wx');
  try {
    writeSync(descriptor, text);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function readClaim(file: string): ClaimRecord | 'none' | 'unreadable' {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'none' : 'unreadable';
  }
  try {
    const record = JSON.parse(text) as Partial<Record<keyof ClaimRecord, unknown>> | null;
    const texts = ['host', 'machine', 'boot', 'pid_namespace', 'pid_start', 'since', 'command'] as const;
    const whole = record !== null && /^[0-9a-f]{16}$/.test(String(record.id)) && Number.isSafeInteger(record.pid);
    return whole && texts.every((key) => typeof record[key] === 'string') ? (record as ClaimRecord) : 'unreadable';
  } catch {
    return 'unreadable';
  }
}
