import { readFileSync } from 'node:fs';
import { EXIT } from '../../errors.js';
import type { Check, CheckPlace } from './check.js';
import { textRun } from './text-run.js';
import { outcomeOf, startTraining, withFolder, type CheckLayout } from './train-run.js';

/** Longest that survivors of a dead rank, and a refusal, may take. */
const MOST_SECONDS = 30;

/** A rank that dies ends the run with its exit code, and a model that does not fit is refused: neither hangs. */
export function failureChecks(place: CheckPlace): Check[] {
  const layouts: CheckLayout[] = [
    { tp: 2, pp: 1, dp: 1 },
    { tp: 1, pp: 2, dp: 1 },
    { tp: 1, pp: 1, dp: 2 },
    { tp: 2, pp: 2, dp: 1 },
  ];
  const killed = layouts.map((layout): Check => ({
    part: 'failures',
    name: `a rank of tp${layout.tp} pp${layout.pp} dp${layout.dp} is killed`,
    ranks: layout.tp * layout.pp * layout.dp,
    run: async ({ gpus }) => {
      const seconds = await killOneRank(place.device, gpus, layout);
      return [{ what: 'seconds until the others ended', value: seconds, bound: MOST_SECONDS }];
    },
  }));
  return [...killed, refusal(place)];
}

/** Seconds from the death of the last rank to the end of the run. Throws unless the run says which rank died. */
async function killOneRank(device: 'cpu' | 'cuda', gpus: readonly number[], layout: CheckLayout): Promise<number> {
  return withFolder(async (folder) => {
    const child = startTraining({ device, gpus, layout, args: textRun({ device }, 100_000) }, folder);
    const outcome = outcomeOf(child);
    const stepped = new Promise<void>((resolve) => {
      child.stdout.on('data', (text: string) => {
        if (text.includes('"type":"step"')) resolve();
      });
    });
    await Promise.race([stepped, outcome]);
    const workers = readFileSync(`/proc/${child.pid ?? 0}/task/${child.pid ?? 0}/children`, 'utf8')
      .trim()
      .split(' ');
    const victim = Number(workers.at(-1));
    const died = performance.now();
    process.kill(victim, 'SIGKILL');
    const { ended, err } = await outcome;
    if (ended !== EXIT.worker || !/rank \d+.*SIGKILL/s.test(err)) {
      throw new Error(`the run ended with ${ended}, not ${EXIT.worker} naming the killed rank:\n${err.slice(-2000)}`);
    }
    return (performance.now() - died) / 1000;
  });
}

/** 32 billion parameters and their optimizer need some 600 GB. */
function refusal({ device }: CheckPlace): Check {
  return {
    part: 'failures',
    name: 'a model that does not fit one process is refused',
    ranks: 1,
    run: async ({ gpus }) =>
      withFolder(async (folder) => {
        const begun = performance.now();
        const layout = { tp: 1, pp: 1, dp: 1 };
        const { ended, err } = await outcomeOf(startTraining({ device, gpus, layout, args: ['qwen3-32b'] }, folder));
        if (ended !== EXIT.environment || !err.includes('MB_MEMORY_PLAN')) {
          throw new Error(
            `the run ended with ${ended}, not ${EXIT.environment} and MB_MEMORY_PLAN:\n${err.slice(-2000)}`,
          );
        }
        return [{ what: 'seconds', value: (performance.now() - begun) / 1000, bound: MOST_SECONDS }];
      }),
  };
}
