import { createHash } from 'node:crypto';
import { MbridgeError } from '../../base/errors.js';
import { ENV } from './messages.js';

/** How a program is started again, as a rank of the run that it asked for. */
export interface ProgramStart {
  /** Absolute path, and its arguments. */
  readonly command: readonly string[];
  /** Hash of what it asked for. */
  readonly asked: string;
}

/** This process's program; `what` (JSON) is all that it asks for and a rank must ask for too. */
export function thisProgram(what: unknown): ProgramStart {
  const asked = createHash('sha256').update(JSON.stringify(what)).digest('hex');
  return { command: process.argv.slice(1), asked };
}

/**
 * Whether this process is a rank that a launcher made of the program.
 * @throws MbridgeError MB_PROGRAM_DIFFERS (exit 2) where it asks for another run here than there
 */
export function isRankOf({ asked }: ProgramStart): boolean {
  const wanted = process.env[ENV.asked];
  if (wanted === undefined) return false;
  if (wanted === asked) return true;
  throw new MbridgeError(
    'usage',
    'MB_PROGRAM_DIFFERS',
    'the program asks for another run on this rank than it was started for',
    {
      hint: 'every rank runs the program up to its one pretrain(config, { ... }): leave times, random numbers and other runs out of it, or give each run a worker module',
    },
  );
}
