import { join } from 'node:path';
import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import type { RunConfig } from '../../../src/config/schema.js';
import { launch } from '../../../src/job/launch/launch.js';
import type { WorkerEvent } from '../../../src/job/shared/messages.js';
import { temporaryFolder, workerModule } from './processes.js';

it('a launcher hears events as the workers sent them, and gives the workers their options', async () => {
  const heard: [number, WorkerEvent][] = [];
  let printed = '';
  const nested = { values: [1, { a: 'ü' }], none: null };
  const { exitCode, result } = await launch({
    name: 'test',
    device: 'cpu',
    argv: [],
    nproc: 2,
    runDir: join(temporaryFolder(), 'run'),
    config: {
      train: { train_iters: 1 },
      dist: { timeout_s: 20 },
      logger: { log_dir: null },
      checkpoint: { save: null },
    } as unknown as RunConfig,
    workerModule: workerModule('options'),
    options: nested,
    onEvent: (event, rank) => heard.push([rank, event]),
    stdout: new Writable({ write: (chunk, _, done) => ((printed += String(chunk)), done()) }),
    stderr: new Writable({ write: (_chunk, _, done) => done() }),
  });
  expect(exitCode).toBe(0);
  expect(result).toMatchObject({ type: 'result', ok: true, exit_code: 0 });
  const sorted = heard.sort(([a], [b]) => a - b);
  expect(sorted).toEqual([0, 1].map((rank) => [rank, { type: 'given', rank, options: nested, value: NaN }]));
  expect(printed.trim().split('\n')).toHaveLength(2);
});
