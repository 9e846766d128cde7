import type { Check, CheckPlace } from './check.js';
import { layoutName, outcomeOf, ranksOf, startTraining, withFolder, type CheckLayout } from './train-run.js';

/** On a GPU the part of 100,000 tokens that a minute has; on a CPU what is quick. */
const TOKENS = { cuda: 20_000, cpu: 500 } as const;

const LAYOUTS: readonly CheckLayout[] = [
  { tp: 1, pp: 1, dp: 1 },
  { tp: 2, pp: 1, dp: 1 },
  { tp: 1, pp: 2, dp: 1 },
];

interface Found {
  readonly compared: number;
  readonly differing: number;
}

/** With `model.batch_invariant` a sampled token's log-probability has the bits of the training forward. */
export function sampledChecks({ device, ranksPerGpu, stop }: CheckPlace): Check[] {
  const model = device === 'cuda' ? ['qwen3-0.6b', 'model.seq_length=1024'] : ['qwen3-tiny', 'model.seq_length=64'];
  const batch = ['train.micro_batch_size=4', 'train.global_batch_size=8', 'model.initializer_range=0.04'];
  const args = [...model, ...batch, 'model.batch_invariant=true', '--tokens', String(TOKENS[device])];
  return LAYOUTS.map((layout): Check => ({
    part: 'sampled',
    name: `log-probabilities of sampled tokens, ${layoutName(layout)}`,
    ranks: ranksOf(layout),
    run: async ({ gpus }) =>
      withFolder(async (folder) => {
        const command = ['bench', 'logprobs'];
        const child = startTraining({ command, device, ranksPerGpu, stop, gpus, layout, args }, folder);
        const { ended, out, err } = await outcomeOf(child);
        if (ended !== 0) throw new Error(`the run ended with ${ended}\n${err.slice(-3000)}`);
        const { tables } = JSON.parse(out) as { tables: { rows: Found[] }[] };
        const rows = tables.flatMap((table) => table.rows);
        const compared = rows.reduce((sum, row) => sum + row.compared, 0);
        const differing = rows.reduce((sum, row) => sum + row.differing, 0);
        // A run that sampled nothing would agree with anything.
        return [{ what: `of ${compared} that differ`, value: compared < TOKENS[device] ? NaN : differing, bound: 0 }];
      }),
  }));
}
