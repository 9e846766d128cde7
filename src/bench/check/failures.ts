import { readFileSync } from 'node:fs';
import { EXIT } from '../../base/errors.js';
import type { Check, CheckPlace } from './check.js';
import { textRun } from './text-run.js';
import { layoutName, outcomeOf, ranksOf, startTraining, withFolder, type CheckLayout } from './train-run.js';

/** Longest that survivors of a dead rank, and a refusal, may take. */
const MOST_SECONDS = 30;

/** Seconds until a collective counts as hung, where a rank stops answering. */
const HANG_SECONDS = { cpu: 3, cuda: 8 } as const;

/** A rank that dies or stops answering ends the run with the exit code of that, and a model that does not fit is refused: neither hangs. */
export function failureChecks(place: CheckPlace): Check[] {
  const layouts: CheckLayout[] = [
    { tp: 2, pp: 1, dp: 1 },
    { tp: 1, pp: 2, dp: 1 },
    { tp: 1, pp: 1, dp: 2 },
    { tp: 2, pp: 2, dp: 1 },
  ];
  const struck = (['SIGKILL', 'SIGSTOP'] as const).flatMap((signal) =>
    layouts.map((layout): Check => ({
      part: 'failures',
      name: `a rank of ${layoutName(layout)} ${signal === 'SIGKILL' ? 'is killed' : 'stops answering'}`,
      ranks: ranksOf(layout),
      run: async ({ gpus }) => {
        const seconds = await strikeOneRank(signal, place, gpus, layout);
        return [{ what: 'seconds until the others ended', value: seconds, bound: MOST_SECONDS }];
      },
    })),
  );
  return [...struck, refusal(place)];
}

/**
 * Seconds from the signal to the last rank to the end of the run. Throws unless the run says which rank died, or, where
 * one is stopped, a rank that waits for it ended by itself and named its collective.
 */
async function strikeOneRank(
  signal: 'SIGKILL' | 'SIGSTOP',
  { device, ranksPerGpu, stop }: CheckPlace,
  gpus: readonly number[],
  layout: CheckLayout,
): Promise<number> {
  return withFolder(async (folder) => {
    const args = [...textRun({ device }, 100_000), `dist.timeout_s=${HANG_SECONDS[device]}`];
    const child = startTraining({ device, ranksPerGpu, stop, gpus, layout, args }, folder);
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
    const struck = performance.now();
    process.kill(victim, signal);
    const { ended, err } = await outcome;
    const [exit, cause] =
      signal === 'SIGKILL' ? [EXIT.worker, /rank \d+.*SIGKILL/s] : [EXIT.hang, /MB_COLLECTIVE_TIMEOUT/];
    if (ended !== exit || !cause.test(err)) {
      throw new Error(`the run ended with ${ended}, not ${exit} and the rank:\n${err.slice(-2000)}`);
    }
    return (performance.now() - struck) / 1000;
  });
}

/** 32 billion parameters and their optimizer need some 600 GB. */
function refusal({ device, ranksPerGpu, stop }: CheckPlace): Check {
  return {
    part: 'failures',
    name: 'a model that does not fit one process is refused',
    ranks: 1,
    run: async ({ gpus }) =>
      withFolder(async (folder) => {
        const begun = performance.now();
        const layout = { tp: 1, pp: 1, dp: 1 };
        const { ended, err } = await outcomeOf(
          startTraining({ device, ranksPerGpu, stop, gpus, layout, args: ['qwen3-32b'] }, folder),
        );
        if (ended !== EXIT.environment || !err.includes('MB_MEMORY_PLAN')) {
          throw new Error(
            `the run ended with ${ended}, not ${EXIT.environment} and MB_MEMORY_PLAN:\n${err.slice(-2000)}`,
          );
        }
        return [{ what: 'seconds', value: (performance.now() - begun) / 1000, bound: MOST_SECONDS }];
      }),
  };
}
