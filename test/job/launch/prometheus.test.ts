import { existsSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { request } from 'node:http';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';
import { RunNumbers } from '../../../src/job/shared/prometheus-endpoint.js';
import { prometheusText } from '../../../src/job/shared/prometheus-text.js';
import { BIN, mbridge } from '../../cli/mbridge.js';
import { pretrainArgs } from '../../checkpoint/runs.js';
import { parsePrometheus as parse } from '../../helpers/parse-prometheus.js';
import { Running, temporaryFolder } from './processes.js';

/** A port that was free a moment ago. */
async function freePort(): Promise<{ port: number; close: () => Promise<void> }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

function scrape(
  port: number,
  path = '/metrics',
  headers = {},
): Promise<{ status: number; type: string; text: string }> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, headers }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text });
      });
    })
      .on('error', reject)
      .end();
  });
}

describe('the text of metrics', () => {
  test('escapes what would end it, and says what is not finite', () => {
    const text = prometheusText([
      {
        ...{ name: 'a_total', help: 'One \\ two\nthree "four".', type: 'counter' },
        samples: [
          { labels: { set: 'x"y\\z\nw', other: '' }, value: 12 },
          { labels: { set: 'plain' }, value: 1.5e-7 },
        ],
      },
      { name: 'b', help: 'None.', type: 'gauge', samples: [] },
      { name: 'c', help: 'Odd.', type: 'gauge', samples: [NaN, Infinity, -Infinity].map((value) => ({ value })) },
    ]);
    expect(text).toBe(
      [
        '# HELP a_total One \\\\ two\\nthree "four".',
        '# TYPE a_total counter',
        'a_total{set="x\\"y\\\\z\\nw",other=""} 12',
        'a_total{set="plain"} 1.5e-7',
        '# HELP c Odd.',
        '# TYPE c gauge',
        ...['c NaN', 'c +Inf', 'c -Inf', ''],
      ].join('\n'),
    );
    // By a parser that is not ours.
    expect(parse(text)[0]).toEqual({
      ...{ name: 'a_total', help: 'One \\ two\nthree "four".', type: 'COUNTER' },
      metrics: [
        { value: '12', labels: { set: 'x"y\\z\nw', other: '' } },
        { value: '1.5e-7', labels: { set: 'plain' } },
      ],
    });
  });

  test('is of the last update, evaluation and checkpoint, and of restarts', () => {
    const numbers = new RunNumbers(50);
    const names = (): string[] => parse(numbers.text()).map(({ name }) => name);
    expect(names()).toEqual(['mbridge_train_iters', 'mbridge_restarts_total']);
    numbers.add({ type: 'step', step: 1, loss: NaN, tokens_seen: 10, step_time_ms: 20 });
    numbers.add({ type: 'step', step: 2, loss: 3.5, tokens_seen: 20, step_time_ms: 25, mfu: 0.4 });
    numbers.add({ type: 'evaluation', step: 2, set: 'valid', loss: 4 });
    numbers.saved({ step: 2, folder: 'x' });
    numbers.restarted();
    const values = parse(numbers.text()).flatMap(({ name, metrics }) => metrics.map(({ value }) => [name, value]));
    const now = expect.stringMatching(/^\d{10}/);
    expect(values).toEqual([
      ['mbridge_step', '2'],
      ['mbridge_loss', '3.5'],
      ['mbridge_tokens_total', '20'],
      ['mbridge_mfu_ratio', '0.4'],
      ['mbridge_step_seconds', '0.025'],
      ['mbridge_step_timestamp_seconds', now],
      ['mbridge_train_iters', '50'],
      ['mbridge_validation_loss', '4'],
      ['mbridge_restarts_total', '1'],
      ['mbridge_checkpoint_step', '2'],
      ['mbridge_checkpoint_timestamp_seconds', now],
    ]);
  });
});

describe('/metrics of a run', () => {
  test('has its numbers while it runs, on this machine alone', { timeout: 60_000 }, async () => {
    const { port, close } = await freePort();
    await close();
    const folder = temporaryFolder();
    const args = [`logger.prometheus_port=${port}`, 'train.train_iters=100000', 'checkpoint.save=null'];
    const run = new Running([process.execPath, BIN, ...pretrainArgs({ folder, args })]);
    await run.says(/"step":2,/);
    const { status, type, text } = await scrape(port);
    expect([status, type]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    const loss = parse(text).find(({ name }) => name === 'mbridge_loss');
    expect(Number(loss?.metrics[0]?.value)).toBeGreaterThan(1);
    expect(await scrape(port, '/')).toMatchObject({ status: 404 });
    expect(await scrape(port, '/metrics', { Host: 'evil.example' })).toMatchObject({ status: 421 });
    run.child.kill('SIGINT');
    expect(await run.ended).toMatchObject({ code: 130 });
    await expect(scrape(port)).rejects.toThrow('ECONNREFUSED');
  });

  test('on a port that is taken is refused before anything is made', async () => {
    const { port, close } = await freePort();
    const folder = temporaryFolder();
    const args = pretrainArgs({ folder, args: [`logger.prometheus_port=${port}`] });
    const { exitCode, stderr } = await mbridge(args, {}, folder);
    await close();
    expect(exitCode).toBe(4);
    expect(stderr).toMatch(/^error MB_PROMETHEUS_PORT: cannot serve \/metrics on port \d+ of 127.0.0.1/m);
    expect(existsSync(join(folder, 'run'))).toBe(false);
  });
});
