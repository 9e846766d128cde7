import { MbridgeError } from './errors.js';
import { UnreadableFile } from './regular-file.js';

/** What an error number of the system means to the user. */
export interface SystemFault {
  readonly errno: string;
  /** Environment (exit code 4): a limit or the network. I/O (7): a file, a disk, an output. */
  readonly kind: 'environment' | 'io';
  readonly reason: string;
  readonly hint: string;
}

const SPACE = 'free some space or choose another disk';
const NETWORK = 'check MASTER_ADDR, the port and the network of this node';
const FAULTS: Readonly<Record<string, Omit<SystemFault, 'errno'>>> = {
  // Limits of the process and of the machine.
  EMFILE: {
    kind: 'environment',
    reason: 'too many files are open in this process',
    hint: 'raise the limit: ulimit -n',
  },
  ENFILE: { kind: 'environment', reason: 'too many files are open on this machine', hint: 'raise fs.file-max' },
  EAGAIN: {
    kind: 'environment',
    reason: 'the limit of processes and threads is reached',
    hint: 'raise the limit (ulimit -u, pids.max of the cgroup), or start fewer processes or threads (MBRIDGE_THREADS)',
  },
  ENOMEM: {
    kind: 'environment',
    reason: 'not enough memory',
    hint: 'free some memory or raise the limit (ulimit -v, memory.max of the cgroup)',
  },
  E2BIG: { kind: 'environment', reason: 'arguments and environment are too long', hint: 'unset large variables' },
  ENOSYS: { kind: 'environment', reason: 'this system does not have the call', hint: 'use a newer kernel' },
  // The network.
  EADDRINUSE: { kind: 'environment', reason: 'the address is in use', hint: 'choose a free port' },
  EADDRNOTAVAIL: { kind: 'environment', reason: 'not an address of this machine, or no port is free', hint: NETWORK },
  ECONNREFUSED: { kind: 'environment', reason: 'nobody listens there', hint: NETWORK },
  ECONNRESET: { kind: 'environment', reason: 'the other side closed the connection', hint: NETWORK },
  EHOSTUNREACH: { kind: 'environment', reason: 'the host cannot be reached', hint: NETWORK },
  ENETUNREACH: { kind: 'environment', reason: 'the network cannot be reached', hint: NETWORK },
  ETIMEDOUT: { kind: 'environment', reason: 'no answer', hint: NETWORK },
  ENOTFOUND: { kind: 'environment', reason: 'no such host', hint: NETWORK },
  EAI_AGAIN: { kind: 'environment', reason: 'the name server did not answer', hint: NETWORK },
  // Files and disks.
  ENOENT: {
    kind: 'io',
    reason: 'no such file or folder',
    hint: 'check the path; a relative one starts at the current directory',
  },
  EACCES: { kind: 'io', reason: 'permission denied', hint: 'give this user the right to it' },
  EPERM: { kind: 'io', reason: 'not permitted', hint: 'give this user the right to it' },
  ENOTDIR: { kind: 'io', reason: 'a part of the path is a file, not a folder', hint: 'check the path' },
  EISDIR: { kind: 'io', reason: 'is a folder, not a file', hint: 'name the file itself' },
  EEXIST: { kind: 'io', reason: 'exists already', hint: 'choose another place' },
  ENOTEMPTY: {
    kind: 'io',
    reason: 'another run wrote there at the same time',
    hint: 'give each run a folder of its own to save in',
  },
  ELOOP: { kind: 'io', reason: 'too many symbolic links', hint: 'check the path' },
  ENAMETOOLONG: { kind: 'io', reason: 'the name is too long', hint: 'choose a shorter one' },
  ENXIO: { kind: 'io', reason: 'no such device', hint: 'check the path' },
  EBUSY: { kind: 'io', reason: 'in use', hint: 'end the program that uses it' },
  ETXTBSY: { kind: 'io', reason: 'a program that runs', hint: 'end the program that uses it' },
  EXDEV: { kind: 'io', reason: 'on another disk', hint: 'choose a place on the same disk' },
  ESTALE: { kind: 'io', reason: 'the file server no longer knows it', hint: 'check the file server, then try again' },
  EINVAL: { kind: 'io', reason: 'the file system does not take this', hint: 'choose another place' },
  ENOTSUP: { kind: 'io', reason: 'the file system does not take this', hint: 'choose another place' },
  EOPNOTSUPP: { kind: 'io', reason: 'the file system does not take this', hint: 'choose another place' },
  ENOSPC: { kind: 'io', reason: 'no space left on the disk', hint: SPACE },
  EDQUOT: { kind: 'io', reason: 'the disk quota is used up', hint: SPACE },
  EFBIG: {
    kind: 'io',
    reason: 'larger than this process may write',
    hint: 'raise the limit of file sizes (ulimit -f)',
  },
  EROFS: { kind: 'io', reason: 'the file system is read-only', hint: 'choose another place' },
  EIO: { kind: 'io', reason: 'the disk reported an error', hint: 'check the disk (dmesg)' },
  EPIPE: { kind: 'io', reason: 'its reader is gone', hint: 'keep the reader of the output running' },
};

/** What the user asked for is not at fault: the remedy is the system's. */
const LIMITS: ReadonlySet<string> = new Set([
  'EMFILE',
  'ENFILE',
  'EAGAIN',
  'ENOMEM',
  'ENOSPC',
  'EDQUOT',
  'EFBIG',
  'EIO',
]);

/** What Node calls limits of the system that it meets itself, and what the C library says of them on stderr. */
const NODE_CODES: Readonly<Record<string, string>> = {
  ERR_WORKER_INIT_FAILED: 'EAGAIN',
  ERR_WORKER_OUT_OF_MEMORY: 'ENOMEM',
};
const SAID: readonly [text: RegExp, errno: string][] = [
  [/too many open files/i, 'EMFILE'],
  [/resource temporarily unavailable|uv_thread_create|pthread_create|std::system_error/i, 'EAGAIN'],
  [/cannot allocate memory|out of memory|std::bad_alloc/i, 'ENOMEM'],
  [/file too large/i, 'EFBIG'],
];

/** The system's error number of what was thrown, such as `ENOSPC`; undefined where it has none. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof UnreadableFile) return errnoOf(error.cause);
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined;
  const code = NODE_CODES[error.code] ?? error.code;
  return 'syscall' in error || Object.hasOwn(FAULTS, code) ? code : undefined;
}

/** What a failed call of the system means, or undefined where `error` is none. */
export function systemFault(error: unknown): SystemFault | undefined {
  const errno = errnoOf(error);
  if (errno === undefined) return undefined;
  const known = FAULTS[errno];
  if (known !== undefined) return { errno, ...known };
  const message = error instanceof Error ? error.message : errno;
  const file = error instanceof Error && 'path' in error;
  return { errno, kind: file ? 'io' : 'environment', reason: message, hint: 'check the system (dmesg)' };
}

/**
 * A failed call of the system as an error that the user can act on; undefined where `error` is none. The kind, and so the
 * exit code, is the error number's.
 * @param about.code by default MB_IO or MB_SYSTEM, by the kind
 * @param about.what what was being done, such as `serve the store`
 * @param about.hint what to do about a file or an address that was chosen; a limit of the system has its own remedy
 */
export function systemError(
  error: unknown,
  about: { code?: string; what?: string; hint?: string } = {},
): MbridgeError | undefined {
  const fault = systemFault(error);
  if (fault === undefined) return undefined;
  const { errno, kind, reason } = fault;
  const { code = kind === 'io' ? 'MB_IO' : 'MB_SYSTEM', what } = about;
  const said = error instanceof Error ? error.message : errno;
  // `spawn EAGAIN`, `write EPIPE`: the system's own text is missing.
  const found = /^\w+ E[A-Z0-9_]+$/.test(said) ? `${said}: ${reason}` : said;
  const hint = LIMITS.has(errno) ? fault.hint : (about.hint ?? fault.hint);
  const message = what === undefined ? found : `cannot ${what}: ${found}`;
  return new MbridgeError(kind, code, message, { hint, cause: error, details: { errno } });
}

/** The limit of the system that a crashed program's last words speak of. */
export function faultSaid(lines: readonly string[]): SystemFault | undefined {
  const errno = SAID.find(([text]) => lines.some((line) => text.test(line)))?.[1];
  const known = errno === undefined ? undefined : FAULTS[errno];
  return errno === undefined || known === undefined ? undefined : { errno, ...known };
}
