import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** What tells a process from every other one, also after its number was given to another or the machine was restarted. */
export interface ProcessIdentity {
  readonly host: string;
  /** Of the installed system, since host names may be equal; empty where it is not known. */
  readonly machine: string;
  /** Changes with each start of the machine. */
  readonly boot: string;
  /** In which `pid` counts: containers of one host have their own. */
  readonly pid_namespace: string;
  readonly pid: number;
  /** Clock ticks from the machine's start to the process's; empty where it is not known. */
  readonly pid_start: string;
}

/**
 * `live` and `dead` are certain. `hidden`: in another container of this host, whose processes are not seen from here.
 * `elsewhere`: on another host.
 */
export type ProcessState = 'live' | 'dead' | 'hidden' | 'elsewhere';

export function identifyThisProcess(): ProcessIdentity {
  return {
    host: hostname(),
    machine: textOf('/etc/machine-id'),
    boot: textOf('/proc/sys/kernel/random/boot_id'),
    pid_namespace: linkOf('/proc/self/ns/pid'),
    pid: process.pid,
    pid_start: startOf(process.pid) ?? '',
  };
}

/** What has become of a process, as far as `here` can tell. */
export function stateOf(other: ProcessIdentity, here: ProcessIdentity): ProcessState {
  if (other.host !== here.host || other.machine !== here.machine) return 'elsewhere';
  if (other.boot !== here.boot) return 'dead';
  if (other.pid_namespace !== here.pid_namespace) return 'hidden';
  const start = startOf(other.pid);
  if (start !== undefined) return start === other.pid_start ? 'live' : 'dead';
  try {
    process.kill(other.pid, 0);
    return 'live';
  } catch (cause) {
    // EPERM: another user's, which a system may hide in /proc.
    return (cause as NodeJS.ErrnoException).code === 'ESRCH' ? 'dead' : 'live';
  }
}

/** When a process began; '' for one that has ended and is still listed, undefined where the system does not tell. */
function startOf(pid: number): string | undefined {
  const stat = textOf(`/proc/${pid}/stat`);
  if (stat === '') return undefined;
  // The second field is the program's name in brackets, and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? '' : fields[19];
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
