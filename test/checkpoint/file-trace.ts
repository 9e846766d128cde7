import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { dirname, join } from 'node:path';

/** One change of the file system, as our code made it; a folder that is removed is the removal of each thing in it. */
export type Change =
  | readonly ['mkdir' | 'create' | 'unlink' | 'rmdir' | 'fsync', path: string]
  | readonly ['rename', from: string, to: string]
  | readonly ['write', path: string, position: number, bytes: Buffer];

/** What may stand in the way of a change: it throws. */
export type Fault = (index: number, change: Change) => void;

/**
 * Runs `work` and records each change that it makes below `top`, in order. Everything is done for real, but for what
 * `fault` refuses, and for fsync, which is only recorded.
 */
export async function traceChanges(
  top: string,
  work: () => Promise<void>,
  fault: Fault = () => undefined,
): Promise<Change[]> {
  const changes: Change[] = [];
  const tick = (change: Change): void => {
    if (!change[1].startsWith(top)) return;
    fault(changes.push(change) - 1, change);
  };
  const opened = new Map<number, string>();
  const { promises } = fs;
  const was = { ...pick(promises, ['open', 'rename', 'rm']), sync: pick(fs, ['mkdirSync', 'openSync', 'fsyncSync']) };
  Object.assign(promises, {
    rename: (from: string, to: string) =>
      after(
        () => tick(['rename', from, to]),
        () => was.rename(from, to),
      ),
    rm: async (path: string, options: fs.RmOptions) => {
      for (const change of removalOf(path)) tick(change);
      await was.rm(path, options);
    },
    open: async (path: string, flags: string) => {
      if (flags !== 'r') tick(['create', path]);
      const handle = await was.open(path, flags);
      const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
      return Object.assign(handle, {
        write: (bytes: Uint8Array, offset: number, length: number, position: number) => {
          const part = Buffer.from(bytes.subarray(offset, offset + length));
          return after(
            () => tick(['write', path, position, part]),
            () => write(bytes, offset, length, position),
          );
        },
        sync: () =>
          after(
            () => tick(['fsync', path]),
            () => Promise.resolve(),
          ),
      });
    },
  });
  Object.assign(fs, {
    mkdirSync: (path: string) => {
      tick(['mkdir', path]);
      return was.sync.mkdirSync(path);
    },
    openSync: (path: string, flags: string) => {
      const descriptor = was.sync.openSync(path, flags);
      opened.set(descriptor, path);
      return descriptor;
    },
    fsyncSync: (descriptor: number) => {
      tick(['fsync', opened.get(descriptor) ?? '']);
    },
  });
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    const { sync, ...rest } = was;
    Object.assign(promises, rest);
    Object.assign(fs, sync);
    syncBuiltinESMExports();
  }
  return changes;
}

function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>;
}

async function after<T>(first: () => void, then: () => Promise<T>): Promise<T> {
  first();
  return then();
}

function* removalOf(path: string): Generator<Change> {
  const found = fs.lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isDirectory()) yield ['unlink', path];
  else {
    for (const name of fs.readdirSync(path)) yield* removalOf(join(path, name));
    yield ['rmdir', path];
  }
}

/** Makes the changes again, but for those of `lost`; what then cannot be made is left out too. */
export function replay(changes: readonly Change[], lost: (index: number) => boolean = () => false): void {
  changes.forEach((change, index) => {
    if (lost(index)) return;
    try {
      redo(change);
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException;
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(code)) throw error;
    }
  });
}

function redo(change: Change): void {
  const [kind, path] = change;
  if (kind === 'mkdir') fs.mkdirSync(path);
  else if (kind === 'create') fs.writeFileSync(path, '', { flag: 'wx' });
  else if (kind === 'unlink') fs.rmSync(path, { force: true });
  else if (kind === 'rmdir') fs.rmdirSync(path);
  else if (kind === 'rename') fs.renameSync(path, change[2]);
  else if (kind === 'write') {
    const descriptor = fs.openSync(path, 'r+');
    fs.writeSync(descriptor, change[3], 0, change[3].length, change[2]);
    fs.closeSync(descriptor);
  }
}

/**
 * Which of the first `count` changes are not yet forced to the disk: POSIX promises content after fsync of the file, and
 * names after fsync of the folder.
 */
export function notForced(changes: readonly Change[], count: number): number[] {
  const lasting = (index: number): boolean => {
    const change = changes[index] as Change;
    const [kind, path] = change;
    if (kind === 'fsync') return true;
    const wanted = kind === 'write' ? path : dirname(kind === 'rename' ? change[2] : path);
    return changes.slice(index + 1, count).some(([later, where]) => later === 'fsync' && where === wanted);
  };
  return Array.from({ length: count }, (_, index) => index).filter((index) => !lasting(index));
}
