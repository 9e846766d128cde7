import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { TokenFile } from '../../../src/data/indexed/token-file.js';
import { mbridge, type Outcome } from '../../cli/mbridge.js';

export const CHATML = join(import.meta.dirname, '../../../fixtures/tokenizer-chatml');

/** A folder of files that goes when the test ends. */
export function corpus(files: Record<string, string | Uint8Array> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-corpus-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** `mbridge data prepare` of a folder into FOLDER/out. */
export async function prepare(folder: string, ...more: string[]): Promise<Outcome> {
  const tokenizer = more.includes('--tokenizer') ? [] : ['--tokenizer', 'byte'];
  const input = more.includes('--input') ? [] : ['--input', folder];
  return await mbridge([
    'data',
    'prepare',
    ...input,
    ...tokenizer,
    '--output',
    join(folder, 'out'),
    '--workers',
    '2',
    ...more,
  ]);
}

/** The documents of a pair, and the bytes of its three files. */
export function pairOf(prefix: string): { documents: number[][]; dtype: string; files: string[] } {
  const file = new TokenFile(prefix, Infinity);
  const documents = Array.from({ length: file.documents }, (_, i) => [...file.document(i)]);
  file.close();
  const files = ['bin', 'idx', 'json'].map((ending) => readFileSync(`${prefix}.${ending}`, 'hex'));
  return { documents, dtype: file.type, files };
}

/** The texts of a pair of bytes whose documents end with 255. */
export function textsOf(prefix: string): string[] {
  return pairOf(prefix).documents.map((ids) => {
    if (ids.pop() !== 255) throw new Error('a document without its end');
    return Buffer.from(ids).toString('utf8');
  });
}

/** A Zstandard file that holds `text` as it stands: one frame of raw blocks. */
export function zstdStored(text: string): Buffer {
  const content = Buffer.from(text);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(content.length);
  const blocks: Buffer[] = [];
  for (let at = 0; at < content.length; at += 100_000) {
    const part = content.subarray(at, at + 100_000);
    const header = Buffer.alloc(3);
    header.writeUIntLE((part.length << 3) | Number(at + part.length === content.length), 0, 3);
    blocks.push(header, part);
  }
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0]), size, ...blocks]);
}
