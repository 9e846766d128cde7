// A training loop as far as stopping goes: the ranks run at their own pace, and agree on the last step. Each says which it was.
import { setTimeout as sleep } from 'node:timers/promises';

export async function runWorker(ctx) {
  const { stepMs = 5 } = ctx.config.test;
  let step = 0;
  do {
    step++;
    ctx.progress(step);
    await sleep(stepMs * (1 + ctx.rank));
    // No step without the others, as collectives have it.
    await ctx.store.set(`step/${step}/${ctx.rank}`, Buffer.from([1]));
    for (let rank = 0; rank < ctx.worldSize; rank++) await ctx.store.get(`step/${step}/${rank}`, 20_000);
    if (ctx.rank === 0) ctx.emit({ type: 'step', step });
  } while (step < ctx.config.train.train_iters && !(await ctx.endsAfter(step)));
  ctx.emit({ type: 'last', rank: ctx.rank, step });
}
