import { ANSWERS } from './answers.js';
import { BENCHES } from './benches.js';
import { PLANS } from './plans.js';
import { RESULTS } from './results.js';
import { RUN_EVENTS } from './run-events.js';
import { STORED } from './stored.js';

/** Every object that is printed with `--json`, and every line of the files of a run, by its `type`. */
export const OUTPUTS = { ...RUN_EVENTS, result: RESULTS, ...ANSWERS, ...PLANS, ...STORED, ...BENCHES } as const;
