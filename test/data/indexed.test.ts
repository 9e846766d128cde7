import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Dataset } from '../../src/data/dataset.js';
import { IndexedWriter } from '../../src/data/indexed/indexed-writer.js';
import { parseSplit, splitRange } from '../../src/data/indexed/split.js';
import { TokenFile } from '../../src/data/indexed/token-file.js';
import { mbridgeError } from './helpers.js';
import { countingDocuments, openIndexed, oracleDocuments, oraclePair, temporaryFolder, writePair } from './pairs.js';

const range = (n: number): number[] => [...Array(n).keys()];
const samples = (dataset: Dataset, from: number, to: number): number[][] =>
  range(to - from).map((i) => [...dataset.sample(from + i).inputIds]);

function openPair(prefix: string, vocabSize = 1 << 20): TokenFile {
  const file = new TokenFile(prefix, vocabSize);
  onTestFinished(() => file.close());
  return file;
}

describe("Megatron's pairs", () => {
  it.each(['uint8', 'int8', 'int16', 'uint16', 'int32', 'int64', 'several'])('%s is read as it was written', (name) => {
    const file = openPair(oraclePair(name));
    const documents = oracleDocuments[name]!.map((sequences) => sequences.flat());
    expect(file.documents).toBe(documents.length);
    const read = documents.map((tokens, d) => {
      const dst = new Int32Array(file.starts[d + 1]! - file.starts[d]!);
      file.read(file.starts[d]!, dst);
      expect(dst.length).toBe(tokens.length);
      return [...dst];
    });
    expect(read).toEqual(documents);
  });

  it.each(['uint16', 'int32'] as const)('%s is written byte for byte as the oracle writes it', async (dtype) => {
    const prefix = join(temporaryFolder(), 'own');
    const writer = IndexedWriter.create(prefix, { dtype });
    for (const [tokens = []] of oracleDocuments[dtype]!) writer.add(Int32Array.from(tokens));
    await writer.commit();
    for (const ending of ['.bin', '.idx']) {
      expect(readFileSync(prefix + ending).equals(readFileSync(oraclePair(dtype) + ending))).toBe(true);
    }
  });

  it('appear when they are whole, in place of what was there', async () => {
    const folder = temporaryFolder();
    const prefix = await writePair(join(folder, 'a'), [[1, 2, 3]]);
    const before = ['.bin', '.idx'].map((ending) => readFileSync(prefix + ending));
    const abandoned = IndexedWriter.create(prefix, { dtype: 'int32' });
    abandoned.add(Int32Array.of(9, 9));
    abandoned.abort();
    expect(['.bin', '.idx'].map((ending) => readFileSync(prefix + ending))).toEqual(before);
    const writer = IndexedWriter.create(prefix, { dtype: 'uint16' });
    expect(() => writer.add(Int32Array.of(1, 65536))).toThrow('token 65536 at place 1 is no uint16');
    writer.add(Int32Array.of(7));
    await writer.commit();
    expect(openPair(prefix).tokens).toBe(1);
    expect(readdirSync(folder).sort()).toEqual(['a.bin', 'a.idx']);
  });

  it('cannot be written where there is no folder', async () => {
    const prefix = join(temporaryFolder(), 'none', 'a');
    const error = await mbridgeError(() => IndexedWriter.create(prefix, { dtype: 'int32' }));
    expect(error).toMatchObject({ code: 'MB_DATA_WRITE', exitCode: 7 });
    expect(error.message).toContain(`cannot write ${prefix}.bin`);
  });

  it('have offsets beyond 2^32', async () => {
    // 3 documents of 2^31 - 1 tokens of 2 bytes: the index alone is looked at.
    const prefix = await writePair(join(temporaryFolder(), 'a'), [[1], [2], [3]]);
    const idx = readFileSync(`${prefix}.idx`);
    idx.writeUInt8(8, 17);
    const length = 2 ** 31 - 1;
    for (const i of range(3)) {
      idx.writeInt32LE(length, 34 + 4 * i);
      idx.writeBigInt64LE(BigInt(i * length * 2), 46 + 8 * i);
    }
    writeFileSync(`${prefix}.idx`, idx);
    const error = await mbridgeError(() => openPair(prefix));
    expect(error.message).toContain(`${6 * length} bytes of tokens (${3 * length} of uint16) are in the index`);
  });
});

describe('splits', () => {
  it.each<[string, number, number[]]>([
    ['1', 10, [10, 10, 10]],
    ['969,30,1', 1000, [969, 999, 1000]],
    ['9999,8,2', 100, [100, 100, 100]],
    ['8, 1, 1', 7, [6, 6, 7]],
    ['0.5,.5', 5, [2, 5, 5]],
    ['0,1,0', 4, [0, 4, 4]],
    ['98,1,1', 3, [3, 3, 3]],
  ])('%s of %i documents end at %j', (text, documents, ends) => {
    const parts = parseSplit(text);
    const cut = (['train', 'validation', 'test'] as const).map((split) => splitRange(parts, documents, split));
    expect(cut.map(({ to }) => to)).toEqual(ends);
    expect(cut.map(({ from }) => from)).toEqual([0, ...ends.slice(0, 2)]);
  });

  it('have no document in common', async () => {
    const documents = countingDocuments(100);
    const path = await writePair(join(temporaryFolder(), 'a'), documents);
    const seen = (['train', 'validation', 'test'] as const).map((split) => {
      const dataset = openIndexed({ path, split: '6,3,1' }, { split });
      return new Set(samples(dataset, 0, 3 * dataset.length).flat());
    });
    const owners = documents.flat().map((token) => seen.filter((tokens) => tokens.has(token)).length);
    expect(Math.max(...owners)).toBe(1);
    // In three epochs of another order each, hardly a token is always in the tail that is left out.
    expect(owners.filter((count) => count === 0).length).toBeLessThan(10);
  });

  it.each([
    ['2,1,0', 'test', 'MB_DATA_EMPTY', 7, /0 of 12 documents \(test\) hold 0 tokens, one sample needs 9/],
    ['1', 'validation', 'MB_DATA_EMPTY', 7, /0 of 12 documents \(validation\)/],
  ] as const)('%s has no sample for %s', async (split, name, code, exitCode, message) => {
    const error = await mbridgeError(() => openIndexed({ path: oraclePair('int32'), split }, { split: name }));
    expect(error).toMatchObject({ code, exitCode });
    expect(error.message).toMatch(message);
  });
});

describe('samples across documents', () => {
  it('in file order are the documents end to end', async () => {
    const tokens = countingDocuments(30).flat();
    const path = await writePair(join(temporaryFolder(), 'a'), countingDocuments(30));
    const dataset = openIndexed({ path, shuffle: false });
    expect(dataset.length).toBe(Math.floor((tokens.length - 1) / 8));
    const expected = range(dataset.length).map((i) => tokens.slice(8 * i, 8 * i + 9));
    expect(samples(dataset, 0, dataset.length)).toEqual(expected);
    expect(samples(dataset, dataset.length, 2 * dataset.length)).toEqual(expected);
  });

  it('shuffled: each epoch reads each document whole and once, in another order', async () => {
    const documents = countingDocuments(200);
    const path = await writePair(join(temporaryFolder(), 'a'), documents);
    const dataset = openIndexed({ path });
    const { length } = dataset;
    const orders = range(2).map((epoch) => {
      const read = samples(dataset, epoch * length, (epoch + 1) * length);
      // The samples in the order of the stream: each begins with the token that the one before it ends with.
      const after = new Map(read.map((sample) => [sample[0]!, sample]));
      const lasts = new Set(read.map((sample) => sample[8]!));
      let sample = read.find(([first]) => !lasts.has(first!));
      const stream = [sample![0]!];
      for (; sample !== undefined; sample = after.get(sample[8]!)) stream.push(...sample.slice(1));
      expect(stream).toHaveLength(8 * length + 1);
      const firsts = new Map(documents.filter((tokens) => tokens.length > 0).map((tokens) => [tokens[0]!, tokens]));
      const order: number[] = [];
      for (let at = 0; at < stream.length;) {
        const document = firsts.get(stream[at]!)!;
        expect(stream.slice(at, at + document.length)).toEqual(document.slice(0, stream.length - at));
        order.push(document[0]!);
        at += document.length;
      }
      expect(new Set(order).size).toBe(order.length);
      return order;
    });
    expect(orders[0]).not.toEqual(orders[1]);
    expect(orders[0]!.filter((first, i) => first === orders[1]![i]).length).toBeLessThan(10);
    expect([0, length - 1, length, 5 * length].map((k) => dataset.epoch!(k))).toEqual([0, 0, 1, 5]);
  });

  it('depend on seed and place alone', async () => {
    const path = await writePair(join(temporaryFolder(), 'a'), countingDocuments(50));
    const dataset = openIndexed({ path });
    const { length } = dataset;
    const forward = samples(dataset, 0, 4 * length);
    const places = [3 * length, 0, length, length - 1, 2 * length + 3, 4 * length - 1];
    const again = openIndexed({ path });
    for (const k of places) expect([...again.sample(k).inputIds], `sample ${k}`).toEqual(forward[k]);
    expect(samples(openIndexed({ path, seed: 4 }), 0, length)).not.toEqual(forward.slice(0, length));
  });
});
