// The processes of binding.test.ts: node binding-process.mjs <role> [arguments].
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { setInterval, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';

const addon = new URL('../../native/build/mbridge.node', import.meta.url);
const b = createRequire(import.meta.url)(fileURLToPath(addon));
const [role, ...args] = process.argv.slice(2);

const roles = {
  /** One of two ranks: prints what all-reduce, all-gather, a swap of messages and a broadcast left. */
  async pair(id, rankText) {
    const rank = Number(rankText);
    const device = b.open('cpu', 0, 1);
    const arena = b.arenaCreate(device, 1024);
    const comm = await b.commCreate(
      device,
      Uint8Array.from(Buffer.from(id, 'hex')),
      'pair',
      rank,
      Int32Array.of(0, 1),
      20,
    );
    const tensor = (slot, n) => [arena, slot * 64, n * 4, 0];
    const write = (slot, values) => {
      b.args.set(tensor(slot, values.length));
      b.write(device, 0, new Uint8Array(new Float32Array(values).buffer));
    };
    const read = (slot, n) => {
      const out = new Float32Array(n);
      b.args.set(tensor(slot, n));
      b.read(device, 0, new Uint8Array(out.buffer));
      return [...out];
    };
    write(0, [rank + 1, rank + 1]);
    b.args.set([...tensor(0, 2), ...tensor(1, 2)]);
    b.allReduce(comm, 0, 2, 0);
    write(0, [rank, rank]);
    b.args.set([...tensor(0, 2), ...tensor(2, 4)]);
    b.allGather(comm, 0, 2);
    write(0, [rank + 1]);
    b.args.set([...tensor(0, 1), ...tensor(3, 1), 1 - rank, 1, 1 - rank, 0]);
    b.p2p(comm, 0, 2);
    write(4, [rank + 1, rank + 1]);
    b.args.set(tensor(4, 2));
    b.broadcast(comm, 0, 2, 1);
    console.log(JSON.stringify([read(1, 2), read(2, 4), read(3, 1), read(4, 2)]));
    b.barrier(comm, 0);
    b.commDestroy(comm);
    b.close(device);
  },
  /** Waits for a member that never comes, and exits meanwhile. */
  waiting() {
    const device = b.open('cpu', 0, 2);
    void b.commCreate(device, b.commMakeId(device), 'never', 0, Int32Array.of(0, 1), 60);
    setTimeout(() => process.exit(3), 200);
  },
  /** Starts a child that dies with it, and prints the child's process id once it has said so. */
  parent() {
    const child = spawn(process.execPath, [process.argv[1], 'child', String(process.pid)], {
      stdio: ['ignore', 'pipe', 2],
    });
    child.stdout.once('data', () => console.log(child.pid));
    setInterval(() => {}, 1000);
  },
  child(parentPid) {
    b.dieWithParent(Number(parentPid));
    console.log('ready');
    setInterval(() => {}, 1000);
  },
  orphan() {
    b.dieWithParent(process.ppid + 1);
    console.log('still here');
  },
};
await roles[role](...args);
