// Workers that fail in every way. `config.test` maps a rank to what it does; the others wait for a key nobody sets, as
// ranks wait in a collective for one that is gone.
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers';
import { setTimeout as sleep } from 'node:timers/promises';
import { MbridgeError } from '../../../../dist/src/base/errors.js';

function block() {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // as a worker stuck in native code: no event is handled
}

export const ACTS = {
  wait: (ctx) => ctx.store.get('never', 60_000),
  'wait 0.2 s': (ctx) => ctx.store.get('never', 200),
  'config error': () => {
    throw new MbridgeError('config', 'MB_TEST_CONFIG', 'tp 3 does not divide 8 heads', { hint: 'use 2 or 4' });
  },
  'config error without a folder': async (ctx) => {
    rmSync(join(ctx.runDir, `rank-${ctx.rank}`), { recursive: true });
    ACTS['config error'](ctx);
  },
  'config error once all are here': async (ctx) => {
    while ((await ctx.store.add('waiting', 0)) < ctx.worldSize - 1) await sleep(10);
    ACTS['config error'](ctx);
  },
  'kill itself once all are here': async (ctx) => {
    while ((await ctx.store.add('waiting', 0)) < ctx.worldSize - 1) await sleep(10);
    await ACTS['kill itself']();
  },
  'say so and wait': async (ctx) => {
    await ctx.store.add('waiting', 1);
    await ACTS.wait(ctx);
  },
  bug: () => {
    throw new TypeError('x is not a function');
  },
  'late bug': async () => {
    setTimeout(() => {
      throw new RangeError('thrown from a timer');
    }, 1);
    await sleep(60_000);
  },
  'rejection nobody awaits': async () => {
    void Promise.reject(new Error('floating'));
    await sleep(60_000);
  },
  'native time-out': () => {
    throw Object.assign(new Error('all_reduce of tp: rank 1 did not join within 5 s'), { code: 'MB_TIMEOUT' });
  },
  'native peer loss': () => {
    throw Object.assign(new Error('rank 1 died'), { code: 'MB_PEER' });
  },
  'native memory': () => {
    throw Object.assign(new Error('needs 80 GB'), { code: 'MB_MEMORY' });
  },
  'missing file': async () => (await import('node:fs')).readFileSync('/nowhere/model.safetensors'),
  abort: (ctx) => {
    for (let i = 1; i <= 30; i++) process.stderr.write(`line ${i}\n`);
    process.stderr.write('terminate called');
    ctx.progress(7);
    process.abort();
  },
  'exit 0': () => process.exit(0),
  'exit 42': () => process.exit(42),
  'kill itself': async () => {
    process.kill(process.pid, 'SIGKILL');
    await sleep(60_000);
  },
  block,
  'fail and hang': (ctx) => {
    process.on('exit', block);
    ACTS['config error'](ctx);
  },
  'ignore everything': async (ctx) => {
    const child = spawn('sleep', ['1000'], { stdio: 'inherit' });
    ctx.stopRequested(); // so that it is the one to stop
    ctx.emit({ type: 'pids', worker: process.pid, child: child.pid });
    for (;;) await sleep(1000);
  },
  'done, but its exit hangs': () => {
    process.on('exit', block);
  },
};

export async function runWorker(ctx) {
  await ACTS[ctx.config.test[String(ctx.rank)] ?? 'wait'](ctx);
}
