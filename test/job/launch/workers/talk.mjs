// Writes to stdout and stderr in odd pieces, and to the log at several levels.
import { setTimeout as sleep } from 'node:timers/promises';

export async function runWorker(ctx) {
  const { stdout, stderr } = process;
  stdout.write(`out ${ctx.rank}: first ha`);
  await sleep(30);
  stdout.write('lf\nout: grün');
  const euro = Buffer.from('€');
  stderr.write(Buffer.concat([Buffer.from('err: '), euro.subarray(0, 1)]));
  await sleep(30);
  stderr.write(Buffer.concat([euro.subarray(1), Buffer.from('\nno newline at the end')]));
  ctx.log.debug('only in the file');
  ctx.log.debug({ count: 12n, cause: new RangeError('too far'), ctx: globalThis }, 'what JSON cannot hold');
  ctx.log.info({ size: 3 }, 'an info');
  ctx.log.error({ count: 12n, cause: new RangeError('too far') }, 'an error');
  ctx.log.warn('a warning');
  ctx.emit({ type: 'note', rank: ctx.rank });
}
