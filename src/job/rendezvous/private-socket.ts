import { randomBytes } from 'node:crypto';
import { linkSync, lstatSync, mkdirSync, readdirSync, rmdirSync, unlinkSync, type Stats } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { systemError } from '../../base/system-error.js';

/** A socket's path has at most 107 bytes; the name of one of ours takes up to 40 of them. */
const MAX_FOLDER_BYTES = 64;
/** A socket that nobody serves may be one that is just being opened, unless it is older than this. */
const STALE_MS = 60_000;
const OURS = /^[\w-]+\.sock(\.[0-9a-f]{8})?$/;

/**
 * Folder for the sockets of this user's runs on this node, into which nobody else can look: in XDG_RUNTIME_DIR where
 * that is this user's own, else `/tmp/mbridge-<uid>`. Every rank of a node gets the same one, and it is checked each time,
 * for another user may have made it, or a link, first.
 * @throws MbridgeError MB_STORE_FOLDER (exit 4)
 */
export function privateFolder(runtimeDir = process.env['XDG_RUNTIME_DIR'], temporary = '/tmp'): string {
  const uid = process.getuid?.() ?? 0;
  const own =
    runtimeDir !== undefined && runtimeDir.startsWith('/') && Buffer.byteLength(runtimeDir) < MAX_FOLDER_BYTES - 8;
  const folder = own && isPrivate(statOf(runtimeDir)) ? join(runtimeDir, 'mbridge') : join(temporary, `mbridge-${uid}`);
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
      throw systemError(error, { code: 'MB_STORE_FOLDER' }) ?? error;
  }
  const found = statOf(folder);
  const above = statOf(dirname(folder));
  if (isPrivate(found) && above !== undefined && !replaceable(above)) return folder;
  const whose = found?.uid === uid ? 'is no folder of mode 0700' : `belongs to uid ${found?.uid ?? '?'}, not to ${uid}`;
  const why = isPrivate(found) ? 'could be replaced by another user' : found?.isSymbolicLink() ? 'is a link' : whose;
  throw new MbridgeError('environment', 'MB_STORE_FOLDER', `${folder}, where the ranks of this node meet, ${why}`, {
    hint: 'remove it, or set XDG_RUNTIME_DIR on every rank to a folder of your own with mode 0700',
  });
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function isPrivate(stats: Stats | undefined): boolean {
  return stats?.isDirectory() === true && stats.uid === process.getuid?.() && (stats.mode & 0o077) === 0;
}

/** Whether others may rename what is in a folder: they may write there, and no sticky bit keeps them from it. */
function replaceable({ mode, uid }: Stats): boolean {
  return (uid !== 0 && uid !== process.getuid?.()) || ((mode & 0o022) !== 0 && (mode & 0o1000) === 0);
}

/** A name beside `path` on which to listen first; {@link publishSocket} gives the socket its own. */
export function temporarySocket(path: string): string {
  return `${path}.${randomBytes(4).toString('hex')}`;
}

/**
 * Gives a socket that is listened on its name. So whoever finds the name is answered, and a name that nobody answers was
 * left by a process that was killed: it is taken over. Returns the socket's inode.
 * @throws MbridgeError MB_STORE_PORT (exit 4) where another run has the name
 */
export async function publishSocket(temporary: string, path: string): Promise<number> {
  try {
    await removeStale(dirname(path));
    try {
      linkSync(temporary, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      if (await isServed(path)) throw taken(path);
      unlinkSync(path);
      linkSync(temporary, path);
    }
    return lstatSync(path).ino;
  } finally {
    unlinkSync(temporary);
  }
}

function taken(path: string): MbridgeError {
  return new MbridgeError('environment', 'MB_STORE_PORT', `another run is starting under the same name (${path})`, {
    hint: 'set MASTER_PORT or MBRIDGE_STORE_PORT to another port on every rank, or end the other run',
  });
}

/** Removes the socket, if the name is still this one's, and the folder with the last of them. */
export function removeSocket(path: string, inode: number): void {
  try {
    if (statOf(path)?.ino === inode) unlinkSync(path);
    rmdirSync(dirname(path));
  } catch {
    // there is none, or others are in the folder
  }
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}

async function removeStale(folder: string): Promise<void> {
  for (const name of readdirSync(folder).filter((entry) => OURS.test(entry))) {
    const path = join(folder, name);
    const stats = statOf(path);
    if (stats === undefined || !stats.isSocket() || Date.now() - stats.mtimeMs < STALE_MS) continue;
    if (!(await isServed(path))) removeSocket(path, stats.ino);
  }
}
