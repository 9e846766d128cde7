import { EXIT } from '../../base/errors.js';
import { reportError, stdoutRefused } from '../../job/shared/report-error.js';

/**
 * Listener for errors of stdout. A reader that has seen enough (`mbridge recipes | head`) ends the command quietly; what
 * cannot be written for another reason, such as a full disk, is said.
 */
export function exitOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  process.exit(reportError(stdoutRefused(error), false));
}
