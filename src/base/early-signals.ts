import { constants as files, readFileSync } from 'node:fs';
import inspector from 'node:inspector';
import { constants } from 'node:os';
import { isatty } from 'node:tty';

/** Set by the first lines of bin/mbridge.js: the mask of ignored signals, which Node resets before any JavaScript runs. */
const IGNORED_AT_START = 'MBRIDGE_SIGNALS_IGNORED';
/** TEST-NET-1 (RFC 5737): no machine has it, so a debugger that is told to listen there cannot. */
const NOWHERE = '192.0.2.1:65535';
const STREAMS = [0, 1, 2];
const HANGUP_CODE = 128 + constants.signals.SIGHUP;
/** A SIGUSR1 that came just before our handler starts the debugger a moment after it. */
const LATE_MS = [0, 50, 250];

/**
 * To be called as early as a process can. Node answers SIGUSR1 with a debugger on 127.0.0.1:9229, through which any user
 * of the machine runs code as the owner; Slurm and other schedulers send that signal as a warning. From here on it is a
 * request to stop: whoever listens for it decides, and where nobody does it ends the process, as SIGUSR2 does. SIGHUP
 * stays ignored where it was ignored when the program was started (nohup).
 */
export function takeEarlySignals(): void {
  if (process.listeners('SIGUSR1').includes(endUnlessHandled)) return;
  process.on('SIGUSR1', endUnlessHandled);
  const ignored = hangupIgnored();
  if (ignored) process.on('SIGHUP', ignore);
  process.env[IGNORED_AT_START] ??= ignored ? '1' : '0'; // for our own processes
  const terminals = STREAMS.filter((stream) => isatty(stream));
  process.on('exit', (code) => {
    if (code === HANGUP_CODE) endByHangup(terminals);
  });
  if (debuggerWanted()) return;
  // It came before this line, so there is nothing yet that could be lost.
  if (inspector.url() !== undefined) process.exit(128 + constants.signals.SIGUSR1);
  for (const ms of LATE_MS) setTimeout(closeDebugger, ms).unref();
}

/** Node 20 aborts as it exits where one of its terminals is gone, as it is after a hangup. */
function endByHangup(terminals: readonly number[]): void {
  if (terminals.every((stream) => isatty(stream))) return;
  process.removeAllListeners('SIGHUP');
  process.kill(process.pid, 'SIGHUP');
}

function ignore(): void {
  // as whoever started the program has asked
}

function endUnlessHandled(): void {
  if (process.listenerCount('SIGUSR1') === 1) process.exit(128 + constants.signals.SIGUSR1);
}

function closeDebugger(): void {
  if (inspector.url() === undefined) return;
  inspector.close();
  process.kill(process.pid, 'SIGUSR1');
}

/** `--inspect` and its kin, on the command line or in NODE_OPTIONS. */
function debuggerWanted(): boolean {
  const options = [...process.execArgv, ...(process.env['NODE_OPTIONS'] ?? '').split(/\s+/)];
  return options.some((option) => /^--inspect(?!-port|-publish-uid)/.test(option));
}

/** Options of Node for a process of ours, so that not even its first moment has a debugger. */
export function nodeOptions(): string[] {
  return process.allowedNodeEnvironmentFlags.has('--disable-sigusr1')
    ? ['--disable-sigusr1']
    : [`--inspect-port=${NOWHERE}`];
}

/** Options that a program was started with for its modules' sake (`--import tsx`), for a process of ours that loads them too. */
export function programOptions(given: readonly string[] = process.execArgv): string[] {
  const options: string[] = [];
  for (let i = 0; i < given.length; i++) {
    const option = given[i] as string;
    const [name = ''] = option.split('=');
    const follows = !option.includes('=') && TAKES_VALUE.has(name) ? [given[++i] as string] : [];
    if (!NOT_FOR_RANKS.test(name)) options.push(option, ...follows);
  }
  return options;
}

/** Of Node's options, those in question that may be followed by their value. */
const TAKES_VALUE = new Set(
  '-r --require --import --loader --experimental-loader -C --conditions --env-file --inspect-port -e --eval -p --print --watch-path --input-type'.split(
    ' ',
  ),
);
/** A debugger's port is one process's, and neither is a program in an option run again. */
const NOT_FOR_RANKS = /^(--inspect.*|-e|--eval|-p|--print|-pe|-i|--interactive|--watch.*|--test.*|--input-type)$/;

/**
 * Whether SIGHUP was ignored when this program was started. Node resets it, so it is taken from what the executable
 * script has seen, and else from the traces that nohup leaves: its name as the command that the shell ran, a standard
 * input that cannot be read, or a parent that ignores the signal too (a script under nohup).
 */
export function hangupIgnored(
  env: NodeJS.ProcessEnv = process.env,
  self = '/proc/self',
  parent = `/proc/${process.ppid}`,
): boolean {
  const seen = env[IGNORED_AT_START];
  if (seen !== undefined) return hasHangup(seen);
  if (/(^|\/)nohup$/.test(env['_'] ?? '')) return true;
  const mode = Number.parseInt(/^flags:\s+(\d+)/m.exec(read(`${self}/fdinfo/0`))?.[1] ?? '0', 8) & 3;
  if (mode === files.O_WRONLY) return true;
  return hasHangup(/^SigIgn:\s+(\w+)/m.exec(read(`${parent}/status`))?.[1] ?? '0');
}

function hasHangup(mask: string): boolean {
  return (Number.parseInt(mask.slice(-8), 16) & (1 << (constants.signals.SIGHUP - 1))) !== 0;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
