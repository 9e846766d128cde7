import { EXIT } from '../errors.js';

/** Listener for errors of stdout: a reader that has seen enough (`mbridge recipes | head`) ends the command quietly. */
export function exitOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.ok);
}
