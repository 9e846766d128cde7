import { EXIT, MbridgeError } from '../../base/errors.js';
import { thrownByProgram } from '../../base/program-error.js';
import { systemError } from '../../base/system-error.js';

/** What stdout could not take for another reason than that its reader has gone: exit code 7, whatever the disk says. */
export function stdoutRefused(cause: Error): MbridgeError {
  return new MbridgeError('io', 'MB_STDOUT', `stdout cannot be written: ${cause.message}`, {
    hint: 'free some space, or send the output elsewhere',
    cause,
  });
}

/**
 * Says on stderr what went wrong: a line and a hint for what a user can act on, a stack for a bug, of ours or of the program. With `json`
 * the last line of stdout says it too. Returns the exit code.
 */
export function reportError(error: unknown, json: boolean): number {
  const known = error instanceof MbridgeError ? error : systemError(error);
  const exitCode = known?.exitCode ?? EXIT.internal;
  const code = thrownByProgram(error) === undefined ? 'MB_INTERNAL' : 'MB_PROGRAM';
  const debug = (process.env['MBRIDGE_DEBUG'] ?? '0') !== '0';
  if (known) {
    const hint = known.hint === undefined ? '' : `\n  ${known.hint}`;
    process.stderr.write(`error ${known.code}: ${known.message}${hint}\n`);
    if (debug) process.stderr.write(`${known.stack ?? ''}\n`);
  } else {
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const head = code === 'MB_PROGRAM' ? 'error MB_PROGRAM: ' : 'internal error (a bug of mbridge, please report it)\n';
    process.stderr.write(`${head}${stack}\n`);
  }
  if (json) {
    const facts = known?.toJSON() ?? { code, exitCode, message: String(error), details: {} };
    process.stdout.write(`${JSON.stringify({ type: 'result', ok: false, exit_code: exitCode, error: facts })}\n`);
  }
  return exitCode;
}
