import { CommanderError } from 'commander';
import { EXIT } from '../base/errors.js';
import { reportError } from '../job/shared/report-error.js';
import { makeProgram } from './program.js';
import { exitOnClosedPipe } from './shared/closed-pipe.js';
import { usageError } from './shared/usage-error.js';

async function main(argv: readonly string[]): Promise<number> {
  process.stdout.on('error', exitOnClosedPipe);
  process.stderr.on('error', () => undefined); // there is nowhere left to say it
  const program = makeProgram();
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? EXIT.ok);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok;
    const own = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
    return reportError(error instanceof CommanderError ? await usageError(error) : error, own.includes('--json'));
  }
}

process.exitCode = await main(process.argv);
