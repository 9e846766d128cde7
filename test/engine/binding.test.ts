import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NativeBinding } from '../../src/engine/binding.js';
import { NATIVE_ABI, loadBinding } from '../../src/engine/load.js';
import { OPS } from '../../src/engine/op-table.js';

const script = fileURLToPath(new URL('binding-process.mjs', import.meta.url));
const addon = fileURLToPath(new URL('../../native/build/mbridge.node', import.meta.url));
const F32 = 0;
const GEMM = OPS.gemm.number;
const FILL = OPS.fill.number;
const OP_COUNT = Object.keys(OPS).length;

const b: NativeBinding = loadBinding();
let device = -1;
let arena = -1;
const ARENA_BYTES = 4096;
const tensor = (offset: number, bytes: number, dtype = F32, from = arena): number[] => [from, offset, bytes, dtype];
const ABSENT = [-1, 0, 0, 0];
const put = (...groups: number[][]): void => b.args.set(groups.flat());
const bytesOf = (values: number[]): Uint8Array => new Uint8Array(new Float32Array(values).buffer);

beforeAll(() => {
  device = b.open('cpu', 0, 2);
  arena = b.arenaCreate(device, ARENA_BYTES);
});
afterAll(() => b.close(device));

/** What a call throws, as `code: message`. */
function failure(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as { code?: string }).code}: ${(error as Error).message}`;
  }
  return 'nothing';
}

describe('the addon', () => {
  it('describes itself and the device', () => {
    expect(b.abi).toBe(NATIVE_ABI);
    expect(b.args).toBeInstanceOf(Float64Array);
    expect(JSON.parse(b.describe('cpu'))).toMatchObject({ backend: 'cpu', cores: b.cpuCount() });
    expect(b.deviceCount('cpu')).toBe(1);
    expect(b.cpuCount()).toBeGreaterThanOrEqual(1);
    const info = b.info(device);
    expect(info).toMatchObject({ index: 0, threads: 2, capability: 0, driver: 0, peakTflops: 0 });
    expect(info.name).not.toBe('');
    expect(info.freeBytes).toBeGreaterThan(0);
    expect(info.freeBytes).toBeLessThanOrEqual(info.totalBytes);
  });

  it('multiplies, and reads back what it wrote', () => {
    put(tensor(0, 16));
    b.write(device, 0, bytesOf([1, 2, 3, 4]));
    put(tensor(64, 16));
    b.write(device, 0, bytesOf([5, 6, 7, 8]));
    put(tensor(0, 16), tensor(64, 16), ABSENT, tensor(128, 16), [2, 2, 2, 0, 0, 2, 2, 0, 2, 1, 0, 0]);
    b.run(device, 0, GEMM, 4, 12);
    const out = new Float32Array(4);
    put(tensor(128, 16));
    b.read(device, 0, new Uint8Array(out.buffer));
    expect([...out]).toEqual([19, 22, 43, 50]);
    b.synchronize(device);
  });

  it('copies, fetches by ticket, and times', async () => {
    put(tensor(256, 16), [4, 2.5]);
    const [begun, done] = [b.eventCreate(device, true), b.eventCreate(device, true)];
    b.record(device, 0, begun);
    b.run(device, 0, FILL, 1, 2);
    b.record(device, 0, done);
    b.wait(device, 1, done);
    expect(b.elapsedMs(device, begun, done)).toBeGreaterThan(0);
    for (const event of [begun, done]) b.eventDestroy(event);
    put(tensor(256, 16), tensor(512, 16));
    b.copy(device, 0);
    put(tensor(512, 16));
    const tickets = [b.fetchBegin(device, 0), b.fetchBegin(device, 0)];
    put(tensor(512, 16), [4, 7]);
    b.run(device, 0, FILL, 1, 2); // what was begun keeps the value it saw
    for (const ticket of tickets.reverse()) {
      expect(new Float32Array((await b.fetchWait(device, ticket, 16)).buffer)).toEqual(new Float32Array(4).fill(2.5));
    }
    expect(failure(() => b.fetchWait(device, tickets[0] ?? 0, 16))).toMatch(/^MB_ARGUMENT: .*not outstanding/);
    put(tensor(512, 16));
    const ticket = b.fetchBegin(device, 0);
    expect(failure(() => b.fetchWait(device, ticket, 12))).toMatch(/^MB_ARGUMENT: .*has 16 bytes, not 12/);
    await b.fetchWait(device, ticket, 16);
  });

  it('plans attention', () => {
    const plan = b.attentionWorkspace(device, F32, 2, 64, 64, 4, 2, 16, 0, true);
    expect(plan.bytes).toBeGreaterThan(0);
    expect(plan.kernel).toContain('cpu');
    expect(failure(() => b.attentionWorkspace(device, 1, 2, 64, 64, 4, 2, 16, 0, true))).toMatch(/^MB_UNSUPPORTED/);
  });
});

describe('arguments that do not fit', () => {
  const fill = (tensors: number[], scalars = [1, 0], on = device): void => {
    put(tensors, scalars);
    b.run(on, 0, FILL, 1, scalars.length);
  };
  const cases: [string, () => unknown, RegExp][] = [
    ['arena that does not exist', () => fill(tensor(0, 4, F32, 99)), /tensor 0: arena 99 does not exist/],
    ['arena that is no number', () => fill(tensor(0, 4, F32, NaN)), /arena nan does not exist/],
    ['beyond the end', () => fill(tensor(ARENA_BYTES - 4, 8)), /arena \d+ has 4096 bytes/],
    ['before the start', () => fill(tensor(-4, 8)), /arena \d+ has 4096 bytes/],
    ['offset NaN', () => fill(tensor(NaN, 8)), /offset nan/],
    ['more bytes than numbers hold', () => fill(tensor(4, 2 ** 63)), /arena \d+ has 4096 bytes/],
    ['half an element', () => fill(tensor(0, 6)), /not whole f32 elements/],
    ['crooked offset', () => fill(tensor(2, 4)), /not whole f32 elements/],
    ['dtype', () => fill(tensor(0, 4, 17)), /dtype 17 does not exist/],
    ['too short for the op', () => fill(tensor(0, 4), [2, 0]), /fill: out has 4 bytes, needs 2 f32 elements/],
    ['scalar count', () => fill(tensor(0, 4), [1]), /fill: got 1 tensors and 1 scalars, takes 1 and 2/],
    ['absent', () => fill(ABSENT), /fill: tensor out is absent/],
    ['device that is not open', () => fill(tensor(0, 4), [1, 0], 55), /device 55 is not open/],
    ['op', () => b.run(device, 0, OP_COUNT, 0, 0), /argument op is \d+, expected an integer from 0 to/],
    ['stream', () => b.run(device, 8, FILL, 1, 2), /argument stream is 8/],
    ['tensor count', () => b.run(device, 0, FILL, 17, 0), /argument nt is 17/],
    ['not a number', () => b.run(device, 0, 'x' as unknown as number, 0, 0), /argument op must be a number/],
    ['missing argument', () => (b.open as (name: string) => number)('cpu'), /argument index must be a number/],
    ['no threads', () => b.open('cpu', 0, 0), /open: 0 threads/],
    ['CPU 1', () => b.open('cpu', 1, 1), /CPU device 1 does not exist/],
    ['backend', () => b.describe('tpu'), /backend tpu does not exist/],
    ['empty arena', () => b.arenaCreate(device, 0), /argument bytes is 0/],
    ['event', () => b.record(device, 0, 256), /event 256 does not exist/],
    ['watch', () => b.watchCheck(7), /watch 7 does not exist/],
    ['communicator', () => b.commAbort(3), /communicator 3 does not exist/],
  ];
  it.each(cases)('%s', (_name, call, text) => {
    expect(failure(call)).toMatch(/^MB_ARGUMENT: /);
    expect(failure(call)).toMatch(text);
  });

  it('refuses sizes that do not match', () => {
    put(tensor(0, 16));
    expect(failure(() => b.write(device, 0, new Uint8Array(12)))).toMatch(/^MB_ARGUMENT: .*16 bytes, src 12/);
    expect(failure(() => b.read(device, 0, new Uint8Array(20)))).toMatch(/^MB_ARGUMENT: .*16 bytes, dst 20/);
    expect(failure(() => b.read(device, 0, new Float32Array(4) as unknown as Uint8Array))).toMatch(
      /must be a Uint8Array/,
    );
    put(tensor(0, 16), tensor(64, 8));
    expect(failure(() => b.copy(device, 0))).toMatch(/^MB_ARGUMENT: copy/);
  });

  it('refuses what the machine does not have, naming the bytes', () => {
    expect(failure(() => b.arenaCreate(device, 2 ** 50))).toMatch(/^MB_MEMORY: cannot allocate 1125899906842624 bytes/);
  });

  it('never takes a freed handle for another', () => {
    const freed = b.arenaCreate(device, 64);
    b.arenaFree(freed);
    const next = b.arenaCreate(device, 64);
    expect(next).not.toBe(freed);
    expect(failure(() => b.arenaFree(freed))).toMatch(/^MB_ARGUMENT: arena \d+ does not exist/);
    const other = b.open('cpu', 0, 1);
    expect(failure(() => fill(tensor(0, 4, F32, next), [1, 0], other))).toMatch(/is of another device/);
    const lost = b.arenaCreate(other, 64);
    b.close(other);
    expect(failure(() => fill(tensor(0, 4, F32, lost)))).toMatch(/does not exist/);
    expect(failure(() => b.info(other))).toMatch(/is not open/);
    b.arenaFree(next);
  });

  it('orders by events of the device that were recorded, and are there', () => {
    const counted = b.handles();
    const [timed, plain] = [b.eventCreate(device, true), b.eventCreate(device, false)];
    expect(b.handles().events).toBe(counted.events + 2);
    expect(failure(() => b.wait(device, 1, plain))).toMatch(/^MB_ARGUMENT: .*never recorded/);
    expect(failure(() => b.elapsedMs(device, timed, timed))).toMatch(/^MB_ARGUMENT: .*never recorded/);
    b.record(device, 0, plain);
    b.wait(device, 1, plain);
    expect(failure(() => b.elapsedMs(device, plain, plain))).toMatch(/^MB_ARGUMENT: .*not made to measure time/);
    const other = b.open('cpu', 0, 1);
    expect(failure(() => b.record(other, 0, plain))).toMatch(/is of another device/);
    const lost = b.eventCreate(other, false);
    b.close(other);
    for (const event of [timed, plain]) b.eventDestroy(event);
    for (const gone of [lost, plain]) {
      expect(failure(() => b.record(device, 0, gone))).toMatch(/^MB_ARGUMENT: event \d+ does not exist/);
      expect(failure(() => b.eventDestroy(gone))).toMatch(/^MB_ARGUMENT: event \d+ does not exist/);
    }
    expect(b.handles()).toEqual(counted);
  });

  it('says why a CUDA backend does not load', () => {
    expect(failure(() => b.loadCuda('/nowhere/libmbridge_cuda.so'))).toMatch(
      /^MB_LIBRARY: .*\/nowhere\/libmbridge_cuda/,
    );
    expect(failure(() => b.loadCuda(addon))).toMatch(/^MB_LIBRARY: .*has no mb_backend_entry/);
    expect(failure(() => b.describe('cuda'))).toMatch(/^MB_LIBRARY: the CUDA backend is not loaded/);
  });
});

describe('loadBinding', () => {
  it('names the path and the reason', () => {
    expect(failure(() => loadBinding({ MBRIDGE_NATIVE: '/nowhere/mbridge.node' }))).toBe(
      'MB_NATIVE_MISSING: the native engine cannot be loaded: /nowhere/mbridge.node does not exist',
    );
    expect(failure(() => loadBinding({ MBRIDGE_NATIVE: script }))).toMatch(/^MB_NATIVE_MISSING: .*does not load: /);
    expect(loadBinding({}).abi).toBe(NATIVE_ABI);
  });
});

describe('communicators', () => {
  it('of one member work in place', async () => {
    const comm = await b.commCreate(device, b.commMakeId(device), 'solo', 0, Int32Array.of(0), 10);
    put(tensor(0, 16));
    b.write(device, 0, bytesOf([1, 2, 3, 4]));
    put(tensor(0, 16), tensor(0, 16));
    b.allReduce(comm, 0, 4, 0);
    b.barrier(comm, 0);
    const out = new Float32Array(4);
    put(tensor(0, 16));
    b.read(device, 0, new Uint8Array(out.buffer));
    expect([...out]).toEqual([1, 2, 3, 4]);
    b.commAbort(comm);
    expect(failure(() => b.barrier(comm, 0))).toMatch(/^MB_PEER/);
    b.commDestroy(comm);
    expect(failure(() => b.commDestroy(comm))).toMatch(/^MB_ARGUMENT: communicator/);
  });

  it('run the ops that are fused with their collectives', async () => {
    const comm = await b.commCreate(device, b.commMakeId(device), 'solo', 0, Int32Array.of(0), 10);
    put(tensor(0, ARENA_BYTES));
    expect(b.commShare(comm, 7)).toBe(true);
    const [partial, residual, w, sum, y, full, rstd] = [0, 1, 2, 3, 4, 5, 6].map((i) => tensor(64 * i, 16));
    for (const [at, values] of [
      [partial, [1, 2, 3, 4]],
      [residual, [1, -1, 1, -1]],
      [w, [1, 1, 2, 2]],
    ] as const) {
      put(at!);
      b.write(device, 0, bytesOf([...values]));
    }
    const tensors = [partial!, residual!, w!, sum!, y!, full!, rstd!];
    put(...tensors, [1, 4, 0]);
    b.commRun(comm, 0, 0, 7, 3);
    const read = (at: number[]): number[] => {
      const out = new Float32Array(4);
      put(at);
      b.read(device, 0, new Uint8Array(out.buffer));
      return [...out];
    };
    expect(read(sum!)).toEqual([2, 1, 4, 3]);
    const root = Math.sqrt(30 / 4);
    [2, 1, 8, 6].forEach((value, i) => expect(read(y!)[i]).toBeCloseTo(value / root, 6));
    expect(read(full!)).toEqual(read(y!));

    expect(failure(() => b.commRun(comm, 0, 3, 7, 3))).toMatch(/^MB_ARGUMENT: .*op is 3/);
    put(...tensors, [1, 4, 0]);
    expect(failure(() => b.commRun(comm, 0, 0, 6, 3))).toMatch(/^MB_ARGUMENT: reduce_norm_gather/);
    put(...tensors.slice(0, 6), tensor(0, 16, F32, 99), [1, 4, 0]);
    expect(failure(() => b.commRun(comm, 0, 0, 7, 3))).toMatch(/^MB_ARGUMENT: tensor 6: arena 99 does not exist/);
    put(tensor(0, ARENA_BYTES));
    b.commUnshare(comm);
    expect(failure(() => b.commShare(comm, -1))).toMatch(/^MB_ARGUMENT: .*layout is -1/);
    b.commDestroy(comm);
    expect(failure(() => b.commShare(comm, 7))).toMatch(/^MB_ARGUMENT: communicator/);
    expect(failure(() => b.commUnshare(comm))).toMatch(/^MB_ARGUMENT: communicator/);
  });

  it('check what they are given', async () => {
    const id = b.commMakeId(device);
    expect(id.byteLength).toBe(128);
    const none = new Int32Array(0);
    expect(failure(() => b.commCreate(device, new Uint8Array(5), 'x', 0, Int32Array.of(0), 1))).toMatch(
      /id has 5 bytes/,
    );
    expect(failure(() => b.commCreate(device, id, 'x', 0, none, 1))).toMatch(/ranks is empty/);
    expect(failure(() => b.commCreate(device, id, 'x', 2, Int32Array.of(0, 1), 1))).toMatch(/argument rank is 2/);
    expect(failure(() => b.commCreate(device, id, 'x', 0, Int32Array.of(0), 0))).toMatch(/timeoutSeconds is 0/);
    // A member that never comes: the promise rejects in time, with the communicator's name.
    await expect(b.commCreate(device, id, 'lonely', 0, Int32Array.of(0, 1), 0.3)).rejects.toMatchObject({
      code: 'MB_TIMEOUT',
      message: expect.stringContaining('lonely') as string,
    });
  });

  it('of two processes add up, and pass messages', async () => {
    const id = Buffer.from(b.commMakeId(device)).toString('hex');
    const [first, second] = await Promise.all([0, 1].map((rank) => finished('pair', id, String(rank))));
    expect(first).toEqual({ code: 0, stdout: '[[3,3],[0,0,1,1],[2],[2,2]]\n' });
    expect(second).toEqual({ code: 0, stdout: '[[3,3],[0,0,1,1],[1],[2,2]]\n' });
  });
});

describe('the process', () => {
  it('exits while a communicator is still waiting for its members', () => {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, [script, 'waiting']);
    expect({ status, stderr: String(stderr) }).toEqual({ status: 3, stderr: '' });
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('dies with its parent', async () => {
    const parent = spawn(process.execPath, [script, 'parent'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const child = Number(await new Promise((resolve) => parent.stdout.once('data', (data) => resolve(String(data)))));
    expect(alive(child)).toBe(true);
    parent.kill('SIGKILL');
    for (let i = 0; i < 100 && alive(child); ++i) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(alive(child)).toBe(false);
  });

  it('ends at once when its parent has gone before', () => {
    expect(spawnSync(process.execPath, [script, 'orphan']).status).toBe(128 + 9);
  });
});

function finished(...args: string[]): Promise<{ code: number | null; stdout: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    let stdout = '';
    child.stdout.on('data', (data) => (stdout += String(data)));
    child.on('close', (code) => resolve({ code, stdout }));
  });
}

/** Whether a process runs; one that nobody has reaped yet does not. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
