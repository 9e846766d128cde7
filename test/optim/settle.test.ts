import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { launch } from '../../src/launch/launch.js';

interface Gathering {
  type: 'gathering';
  reader: string;
  before: string[];
  after: string[];
}

test('whatever reads parameters first waits for those that the update before is still gathering', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-settle-'));
  const config = qwen3TinyPretrainConfig({ seq_length: 64 });
  let out = '';
  let log = '';
  try {
    const { exitCode } = await launch({
      name: 'settle',
      config,
      nproc: 2,
      device: 'cpu',
      json: true,
      runDir: join(folder, 'run'),
      argv: [],
      workerModule: join(import.meta.dirname, '../workers/settle.mjs'),
      stdout: new Writable({ write: (chunk, _, done) => ((out += String(chunk)), done()) }),
      stderr: new Writable({ write: (chunk, _, done) => ((log += String(chunk)), done()) }),
    });
    expect(exitCode, log).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const events = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Gathering | { type: 'result' })
    .filter((event) => event.type === 'gathering');
  const readers = ['forwardBackward with hooks', 'forwardBackward without', 'evaluate', 'parameters'];
  expect(events.map(({ reader }) => reader)).toEqual(readers);
  for (const { before, after, reader } of events) {
    // Norms are waited for at once: no layer announces that it needs them.
    expect(before, reader).toContain('layer.0');
    expect(before, reader).not.toContain('norms');
    expect(after, reader).toEqual([]);
  }
});
