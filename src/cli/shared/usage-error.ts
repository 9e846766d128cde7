import type { CommanderError } from 'commander';
import { MbridgeError } from '../../base/errors.js';

/** Commander's finding as a usage error (exit code 2). */
export function usageError({ code, message }: CommanderError): MbridgeError {
  // Help that commander shows because no command was given comes as this code, already printed.
  const text =
    code === 'commander.help'
      ? 'no command given'
      : message
          .replace(/^error: /, '')
          .replaceAll('\n', ' ')
          .replace('(Did you', '(did you');
  return new MbridgeError('usage', 'MB_USAGE', text, { hint: 'mbridge --help, mbridge <command> --help' });
}
