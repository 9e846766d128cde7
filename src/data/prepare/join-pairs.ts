import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { makeFolder } from '../../base/make-folder.js';
import { syncFolder } from '../../base/sync-folder.js';
import { writeError } from '../indexed/format.js';
import { IndexedWriter } from '../indexed/indexed-writer.js';
import { TokenFile } from '../indexed/token-file.js';
import { sidecarText, type Sidecar } from '../indexed/sidecar.js';

const ENDINGS = ['json', 'bin', 'idx'] as const;

/** Whether all three files of a pair are there: each gets its name when it is whole. */
export function isWhole(prefix: string): boolean {
  return ENDINGS.every((ending) => existsSync(`${prefix}.${ending}`));
}

/** @throws MbridgeError MB_DATA_EXISTS (exit 7) */
export function refuseExisting(output: string): void {
  const found = ENDINGS.map((ending) => `${output}.${ending}`).find((path) => existsSync(path));
  if (found === undefined) return;
  throw new MbridgeError('io', 'MB_DATA_EXISTS', `${found} exists`, {
    hint: 'name another --output, or remove it with its .bin, .idx and .json',
    details: { path: found },
  });
}

/**
 * Puts pairs end to end and gives the three files their names, the index last: a pair is there when its index is.
 * @param folder on the same disk, where they grow
 */
export async function joinPairs(
  prefixes: readonly string[],
  output: string,
  folder: string,
  sidecar: Sidecar,
): Promise<void> {
  const temporary = join(folder, 'all');
  const writer = IndexedWriter.create(temporary, { dtype: sidecar.dtype });
  try {
    for (const prefix of prefixes) {
      const file = new TokenFile(prefix, Infinity);
      try {
        for (let i = 0; i < file.documents; i++) writer.add(file.document(i));
      } finally {
        file.close();
      }
    }
    await writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  try {
    makeFolder(dirname(resolve(output)));
    writeFileSync(`${temporary}.json`, sidecarText(sidecar), { flush: true });
    for (const ending of ENDINGS) renameSync(`${temporary}.${ending}`, `${output}.${ending}`);
    syncFolder(dirname(resolve(output)));
  } catch (cause) {
    throw writeError(output, cause);
  }
}
