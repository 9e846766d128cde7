import { EXIT, MbridgeError } from '../../base/errors.js';
import { systemError } from '../../base/system-error.js';

/** What stdout could not take for another reason than that its reader has gone: exit code 7, whatever the disk says. */
export function stdoutRefused(cause: Error): MbridgeError {
  return new MbridgeError('io', 'MB_STDOUT', `stdout cannot be written: ${cause.message}`, {
    hint: 'free some space, or send the output elsewhere',
    cause,
  });
}

/**
 * Says on stderr what went wrong: a line and a hint for what a user can act on, a stack for a bug of ours. With `json`
 * the last line of stdout says it too. Returns the exit code.
 */
export function reportError(error: unknown, json: boolean): number {
  const known = error instanceof MbridgeError ? error : systemError(error);
  const exitCode = known?.exitCode ?? EXIT.internal;
  const debug = (process.env['MBRIDGE_DEBUG'] ?? '0') !== '0';
  if (known) {
    const hint = known.hint === undefined ? '' : `\n  ${known.hint}`;
    process.stderr.write(`error ${known.code}: ${known.message}${hint}\n`);
    if (debug) process.stderr.write(`${known.stack ?? ''}\n`);
  } else {
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`internal error (a bug of mbridge, please report it)\n${stack}\n`);
  }
  if (json) {
    const facts = known?.toJSON() ?? { code: 'MB_INTERNAL', exitCode, message: String(error), details: {} };
    process.stdout.write(`${JSON.stringify({ type: 'result', ok: false, exit_code: exitCode, error: facts })}\n`);
  }
  return exitCode;
}
