/**
 * What reading token files costs the thread that trains: opening, shuffling an epoch, samples, by time and by processor.
 *
 *   node dist/bench/indexed-data.js [--documents 10000000] [--mean 100] [--seq-length 4096] [--folder DIR]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { IndexedWriter } from '../src/data/indexed/indexed-writer.js';
import { openDataset } from '../src/data/open-dataset.js';

const SAMPLES = 1000;
const together = { document_attention: false, mask_document_starts: false } as const;

function timed<T>(what: string, times: number, act: () => T): T {
  const [cpu, begin] = [process.cpuUsage(), performance.now()];
  const result = act();
  const ms = performance.now() - begin;
  const { user, system } = process.cpuUsage(cpu);
  const each = (value: number): string => (value / times).toFixed(3);
  console.log(`${what}: ${each(ms)} ms, ${each((user + system) / 1000)} ms of a core`);
  return result;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      documents: { type: 'string', default: '10000000' },
      mean: { type: 'string', default: '100' },
      'seq-length': { type: 'string', default: '4096' },
      folder: { type: 'string', default: tmpdir() },
    },
  });
  const [documents, mean, seqLength] = [values.documents, values.mean, values['seq-length']].map(Number) as [
    number,
    number,
    number,
  ];
  const folder = await mkdtemp(join(values.folder, 'mbridge-indexed-'));
  try {
    const path = join(folder, 'data');
    const tokens = Int32Array.from({ length: 2 * mean }, (_, i) => (i * 7919) % 65536);
    const writer = IndexedWriter.create(path, { dtype: 'uint16' });
    timed(`write ${documents} documents`, 1, () => {
      for (let d = 0; d < documents; d++) writer.add(tokens.subarray(0, (d * 37) % (2 * mean)));
    });
    await writer.commit();
    for (const shuffle of [false, true]) {
      const dataset = { type: 'indexed', path, blend: null, split: '1', shuffle, seed: 1, ...together } as const;
      const options = { dataset, tokenizer: { type: 'byte' }, vocabSize: 65536, seqLength } as const;
      const opened = timed('open', 1, () => openDataset(options));
      timed(`first sample, ${shuffle ? 'which shuffles the epoch' : 'in file order'}`, 1, () => opened.sample(0));
      timed(`a sample of ${seqLength} tokens`, SAMPLES, () => {
        for (let k = 1; k <= SAMPLES; k++) opened.sample(k % opened.length);
      });
      opened.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

await main();
