import { expect, test } from 'vitest';
import { qwen3TinyPretrainConfig } from '../../../recipes/qwen3.js';
import { runWorkers } from '../../helpers/run-workers.js';

interface Gathering {
  type: 'gathering';
  reader: string;
  before: string[];
  after: string[];
}

test('whatever reads parameters first waits for those that the update before is still gathering', async () => {
  const { exitCode, events, log } = await runWorkers('settle', qwen3TinyPretrainConfig({ seq_length: 64 }), 2);
  expect(exitCode, log).toBe(0);
  const gatherings = events as Gathering[];
  const readers = ['forwardBackward with hooks', 'forwardBackward without', 'evaluate', 'parameters'];
  expect(gatherings.map(({ reader }) => reader)).toEqual(readers);
  for (const { before, after, reader } of gatherings) {
    // Norms are waited for at once: no layer announces that it needs them.
    expect(before, reader).toContain('layer.0');
    expect(before, reader).not.toContain('norms');
    expect(after, reader).toEqual([]);
  }
});
