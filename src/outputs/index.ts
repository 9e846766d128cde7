import { ANSWERS } from './answers.js';
import { BENCHES } from './benches.js';
import { PLANS } from './plans.js';
import { RESULTS } from './results.js';
import { RUN_EVENTS } from './run-events.js';
import { RUN_FILES } from './run-files.js';
import { STORED } from './stored.js';

/** Every object that is printed with `--json`, and every object of a run's files, by its `type`. */
export const OUTPUTS = {
  ...RUN_EVENTS,
  result: RESULTS,
  ...RUN_FILES,
  ...ANSWERS,
  ...PLANS,
  ...STORED,
  ...BENCHES,
} as const;
