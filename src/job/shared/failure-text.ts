import { errorText } from '../../base/errors.js';
import type { Paint } from './console-lines.js';
import type { RootCause } from './root-cause.js';

/**
 * What the user reads when a run has failed: the cause, what to do, the last words of a crash, and where to look.
 * @param files of the rank; undefined where the run had no folder yet
 * @param waits who waited in which collective
 */
export function formatFailure(
  cause: RootCause,
  files: { log: string; stderr: string } | undefined,
  paint: Paint,
  waits?: string,
): string {
  const at = cause.step > 0 ? ` at step ${cause.step}` : '';
  const named = cause.message.includes(`rank ${cause.rank}`);
  const message = `${named ? '' : `rank ${cause.rank}: `}${cause.message}${at}`;
  const lines = [errorText({ ...cause, message }, paint.red)];
  if (waits !== undefined) lines.push(`  ${waits}`);
  if (cause.stack !== undefined) lines.push(indent(cause.stack.split('\n').slice(0, 12)));
  if (cause.stderrTail.length > 0) lines.push('  last lines of its stderr:', indent(cause.stderrTail));
  if (cause.others !== '') lines.push(paint.dim(`  ${cause.others}`));
  if (files !== undefined) lines.push(paint.dim(`  log: ${cause.stderrTail.length > 0 ? files.stderr : files.log}`));
  return lines.join('\n');
}

function indent(lines: readonly string[]): string {
  return lines.map((line) => `    ${line}`).join('\n');
}
