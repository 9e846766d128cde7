import { hostname } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { SaveWatch } from '../../src/checkpoint/run/save-watch.js';
import { connectStore } from '../../src/job/rendezvous/store-client.js';
import { StoreServer } from '../../src/job/rendezvous/store-server.js';
import type { Store } from '../../src/job/rendezvous/store.js';
import { mbridgeError } from '../data/helpers.js';

const TIMEOUT_MS = 600;

/** A store with so many ranks, and what each of them watches a save with. */
async function ranks(size: number): Promise<{ stores: Store[]; watches: SaveWatch[] }> {
  const token = 'secret';
  const server = await StoreServer.listen({ host: '127.0.0.1', port: 0, token, worldSize: size });
  onTestFinished(() => server.close());
  const { port } = server;
  const all = Array.from({ length: size }, (_, rank) =>
    connectStore({ host: '127.0.0.1', port, token, rank, worldSize: size, timeoutMs: 20_000 }),
  );
  const stores = await Promise.all(all);
  onTestFinished(async () => {
    for (const store of stores) await store.close();
  });
  const watches = stores.map((store, rank) => {
    const rest = { warn: () => undefined, awaited: () => true };
    return new SaveWatch({ store, rank, size, runToken: 'abc', timeoutMs: TIMEOUT_MS, ...rest });
  });
  for (const watch of watches) await watch.announce();
  return { stores, watches };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('a rank that is silent in a save is named by the one that commits', async () => {
  const { watches } = await ranks(3);
  const [first, second] = watches as [SaveWatch, SaveWatch, SaveWatch];
  await second.contribute('save-1');
  const error = await mbridgeError(() =>
    first.during(async () => {
      await first.contribute('save-1');
      await first.wait('all', 'saving update 5', 'writers');
    }),
  );
  expect(error).toMatchObject({ code: 'MB_CHECKPOINT_HANG', exitCode: 6, details: { ranks: [2] } });
  expect(error.message).toContain(`saving update 5: rank 2 (${hostname()}) did not write its part`);
});

test('the others name the one that commits', async () => {
  const { watches } = await ranks(2);
  const error = await mbridgeError(() => watches[1]!.wait('committed', 'saving update 5', 'first'));
  expect(error).toMatchObject({ exitCode: 6, details: { ranks: [0] } });
});

test('a rank that takes long but lives is waited for', async () => {
  const { stores, watches } = await ranks(2);
  const [first, second] = watches as [SaveWatch, SaveWatch];
  const slow = second.during(async () => {
    await pause(4 * TIMEOUT_MS);
    expect(await second.contribute('save-1')).toBe(true);
    await stores[1]!.set('all', new Uint8Array());
  });
  await first.during(async () => {
    expect(await first.contribute('save-1')).toBe(false);
    await first.wait('all', 'saving update 5', 'writers');
  });
  await slow;
});
