import { readFileSync } from 'node:fs';
import { tableFromIPC } from '@uwdata/flechette';
import { didYouMean } from '../../base/nearest.js';
import { badData, unreadable } from '../data-error.js';

/**
 * A column of an Arrow file, of the streaming or the file format, a record batch at a time. The file is in memory meanwhile:
 * shards of datasets have at most half a gigabyte.
 * @throws MbridgeError MB_DATA_ARROW (exit 7) where it is damaged or has no such column
 */
export function* arrowTexts(path: string, column: string, onRead: (bytes: number) => void): Generator<unknown[]> {
  const bytes = readWhole(path);
  const table = decode(path, bytes);
  const columns = table.schema.fields.map(({ name }) => name);
  const found = table.getChild(column);
  if (!columns.includes(column)) {
    const has = columns.slice(0, 12).join(', ');
    const missing = `has no column ${column}${didYouMean(column, columns)}; columns: ${has}`;
    throw badData('MB_DATA_ARROW', path, missing, 'name one with --field');
  }
  for (const batch of found.data) {
    yield Array.from({ length: batch.length }, (_, i) => batch.at(i) as unknown);
    onRead(bytes.length / found.data.length);
  }
}

function readWhole(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    if ((cause as { code?: unknown }).code === 'ERR_FS_FILE_TOO_LARGE') {
      throw badData('MB_DATA_ARROW', path, 'has more than 2 GiB', 'write it in shards, or as Parquet');
    }
    throw unreadable(path, cause, '--input');
  }
}

function decode(path: string, bytes: Uint8Array): ReturnType<typeof tableFromIPC> {
  try {
    return tableFromIPC(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = reason.includes('compression')
      ? 'write it without compression, or as Parquet'
      : 'the file is cut or damaged: write it again';
    throw badData('MB_DATA_ARROW', path, `cannot be read: ${reason}`, hint);
  }
}
