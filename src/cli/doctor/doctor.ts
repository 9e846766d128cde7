import type { Command } from 'commander';
import { outputLine } from '../../outputs/line.js';

/** `mbridge doctor`: what of this machine a run can use, and why not the rest. Exit code 4 where nothing can run. */
export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('show devices, driver, libraries and engine, and what a run would use')
    .option('--json', 'as JSON')
    .action(async ({ json }: { json?: boolean }) => {
      const { EXIT } = await import('../../base/errors.js');
      const { gatherFacts } = await import('../../doctor/facts.js');
      const { diagnose, formatReport } = await import('./report.js');
      const facts = await gatherFacts();
      const usable = diagnose(facts);
      process.stdout.write(json ? outputLine('doctor', { ...facts, usable }) : formatReport(facts));
      process.exitCode = usable.cpu ? EXIT.ok : EXIT.environment;
    });
}
