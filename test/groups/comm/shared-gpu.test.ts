import { expect, test } from 'vitest';
import { CommRuntime } from '../../../src/groups/comm/comm-runtime.js';
import type { Store } from '../../../src/job/rendezvous/store.js';
import type { Device } from '../../../src/engine/device.js';

/** What NCCL 2.28 says, through the CUDA backend. */
const DUPLICATE = 'communicator tp [0,1]: join: NCCL 2.28.9: Duplicate GPU detected : rank 0 and rank 1 both on 60';

test.each([
  [DUPLICATE, { code: 'MB_SHARED_GPU', exitCode: 4, message: DUPLICATE }],
  ['communicator tp [0,1]: join: out of memory', { message: 'communicator tp [0,1]: join: out of memory' }],
])('a communicator that fails with "%s"', async (said, expected) => {
  const binding = { commMakeId: () => new Uint8Array(128), commCreate: () => Promise.reject(new Error(said)) };
  const device = { handle: 0, binding } as unknown as Device;
  const store = { set: () => Promise.resolve(), network: null } as unknown as Store;
  const runtime = new CommRuntime({ rank: 0, device, store, timeoutSeconds: 1 });
  const error: unknown = await runtime.createGroups('tp', [[0, 1]]).catch((reason: unknown) => reason);
  expect(error).toMatchObject(expected);
  expect((error as { hint?: string }).hint ?? '').toContain('hint' in expected ? 'NCCL 2.30' : '');
});
