import { expect, test } from 'vitest';
import type { Device } from '../../../src/engine/device.js';
import type { MemoryPlan } from '../../../src/engine/memory-plan.js';
import { CommRuntime } from '../../../src/groups/comm/comm-runtime.js';
import { NON_MEMBER } from '../../../src/groups/grid/process-group.js';
import type { Store } from '../../../src/job/rendezvous/store.js';

// Two ranks a node, of a device that stands in for what this machine has not: it records what it is asked.
const CASES = [
  { kind: 'cuda', ranks: [0, 1], address: undefined, shared: true, keyed: false },
  { kind: 'cuda', ranks: [0, 2], address: undefined, shared: false, keyed: false },
  { kind: 'cpu', ranks: [0, 1], address: undefined, shared: true, keyed: false },
  { kind: 'cpu', ranks: [0, 2], address: '10.0.0.7', shared: true, keyed: true },
] as const;

test.each(CASES)('$kind, ranks $ranks of two nodes', async ({ kind, ranks, address, shared, keyed }) => {
  const asked = { address: undefined as string | undefined, id: new Uint8Array() as Uint8Array, shared: false };
  const binding = {
    commMakeId: (_: number, at?: string) => {
      asked.address = at;
      return new Uint8Array(128);
    },
    commCreate: (_: number, id: Uint8Array) => {
      asked.id = id;
      return Promise.resolve(7);
    },
    commShare: () => (asked.shared = true),
  };
  const device = { handle: 0, kind, binding, put: () => undefined } as unknown as Device;
  const sent: Uint8Array[] = [];
  const store = {
    set: (_: string, value: Uint8Array) => Promise.resolve(void sent.push(Uint8Array.from(value))),
    network: {
      address: '10.0.0.7',
      nodeOf: (rank: number) => Promise.resolve(`node ${Math.floor(rank / 2)}`),
      key: () => new Uint8Array(32).fill(9),
    },
  } as unknown as Store;
  const runtime = new CommRuntime({ rank: 0, device, store, timeoutSeconds: 1 });
  const group = await runtime.createGroups('tp', [ranks]);
  if (group === NON_MEMBER) throw new Error('rank 0 is in the group');
  group.share({ arenas: () => [{ arena: 1 }], layout: 0, beforeRelease: () => undefined } as unknown as MemoryPlan);
  expect(asked).toMatchObject({ address, shared });
  expect([...asked.id.slice(96)].every((byte) => byte === 9)).toBe(keyed);
  expect(group.sharesMemory).toBe(shared);
  // The key does not go through the store.
  expect(sent.flatMap((id) => [...id])).not.toContain(9);
});
