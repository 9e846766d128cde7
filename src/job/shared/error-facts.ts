import { isRetryable } from '../../base/errors.js';
import type { OutputFacts } from '../../outputs/line.js';

type ErrorFacts = NonNullable<OutputFacts<'restart'>['error']>;

/** What `--json` says of a failure, beside the exit code. */
export function errorFacts(
  { code, message, hint, waits, rank, step, details }: Omit<ErrorFacts, 'retryable'>,
  exitCode: number,
): ErrorFacts {
  const known = {
    ...(hint === undefined ? {} : { hint }),
    ...(waits === undefined ? {} : { waits }),
    ...(rank === undefined ? {} : { rank }),
    ...(step === undefined ? {} : { step }),
    ...(details === undefined || Object.keys(details).length === 0 ? {} : { details }),
  };
  return { code, message, ...known, retryable: isRetryable(exitCode) };
}
