import { EXIT, MbridgeError, errorText } from '../../base/errors.js';
import { thrownByProgram } from '../../base/program-error.js';
import { systemError } from '../../base/system-error.js';
import { outputLine } from '../../outputs/line.js';
import { paintFor } from './console-lines.js';
import { errorFacts } from './error-facts.js';

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
  const bug = code === 'MB_INTERNAL' ? { hint: 'this is a bug of mbridge: please report it with the lines below' } : {};
  const found = known ?? { code, message: String(error), ...bug };
  process.stderr.write(`${errorText(found, paintFor(process.stderr).red)}\n`);
  const { stack } = error instanceof Error ? error : {};
  if (stack !== undefined && (known === undefined || debug)) process.stderr.write(`${stack}\n`);
  if (json) {
    const facts = errorFacts(found, exitCode);
    process.stdout.write(outputLine('result', { ok: false, exit_code: exitCode, error: facts }));
  }
  return exitCode;
}
