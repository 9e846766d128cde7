import { describe, test } from 'vitest';
import { visibleGpus } from '../../src/engine/devices.js';
import { expectAdoptions, SHARDING, type Adoption, type TransferLayout } from '../helpers/transfers.js';

/** MBRIDGE_RANKS_PER_GPU lets layouts of more processes than there are GPUs run. */
const ranksPerGpu = Number(process.env['MBRIDGE_RANKS_PER_GPU'] ?? 1);
const ranks = visibleGpus() * ranksPerGpu;

const PAIRS: readonly (readonly [number, TransferLayout, TransferLayout])[] = [
  [2, { tp: 2, pp: 1, dp: 1 }, { tp: 1, pp: 1, dp: 2 }],
  [2, { tp: 1, pp: 1, dp: 2 }, { tp: 1, pp: 2, dp: 1 }],
  [4, { tp: 2, pp: 2, dp: 1 }, { tp: 1, pp: 1, dp: 4 }],
  [4, { tp: 1, pp: 1, dp: 4 }, { tp: 2, pp: 1, dp: 1, first: 2 }],
];

describe('the next update in bf16 of a model that is trained is that of one which was loaded with the weights', () => {
  for (const size of [2, 4]) test.skipIf(size > ranks)(`on ${size} ranks`, () => adopt(size));
});

async function adopt(size: number): Promise<void> {
  const adoptions = PAIRS.filter(([least]) => least === size).flatMap(([, from, to]) =>
    SHARDING.flatMap((sharding) =>
      (['trained', 'frozen'] as const).map((source): Adoption => ({
        from,
        to,
        sharding,
        precision: 'bf16_mixed',
        source,
        updates: true,
      })),
    ),
  );
  await expectAdoptions(adoptions, { ranks: size, device: 'cuda', ranksPerGpu });
}
