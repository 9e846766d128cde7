import { gatherFacts } from '../../src/doctor/facts.js';
import { diagnose, formatReport } from '../../src/cli/doctor/report.js';
import { EXIT } from '../../src/base/errors.js';

/** Without a usable GPU no test of this folder can say anything: that is said once, and is no success. */
export async function setup(): Promise<void> {
  const facts = await gatherFacts();
  console.log(formatReport(facts));
  if (diagnose(facts).cuda) return;
  console.error('error MB_NO_GPU: no GPU can be used here (above): the tests of test/gpu were not run');
  process.exit(EXIT.environment);
}
