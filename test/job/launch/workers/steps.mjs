// A well-behaved worker: steps until it is done or asked to stop; rank 0 reports.
import { setTimeout as sleep } from 'node:timers/promises';

export async function runWorker(ctx) {
  const steps = ctx.config.train.train_iters;
  await ctx.store.set(`here/${ctx.rank}`, Buffer.from([ctx.rank]));
  for (let rank = 0; rank < ctx.worldSize; rank++) await ctx.store.get(`here/${rank}`, 10_000);
  ctx.log.info(`ready with ${ctx.threads} threads`);
  let step = 0;
  while (step < steps && ctx.stopRequested() === 'no') {
    step++;
    ctx.progress(step);
    await sleep(ctx.config.test?.stepMs ?? 1);
    if (ctx.rank === 0) {
      const rates = { tokens: 2048, step_time_ms: 812, tokens_per_s_per_device: 2522.2, mfu: 0 };
      ctx.emit({ type: 'step', step, loss: 5.1234, grad_norm: step === 2 ? NaN : 1.23, lr: 1e-3, ...rates });
    }
  }
  ctx.log.debug(`the last step was ${step}`);
  if (ctx.rank === 0) ctx.emit({ type: 'result', steps: step });
}
