import { closeSync, readSync } from 'node:fs';
import { parquetMetadataAsync, parquetReadObjects, parquetSchema, type AsyncBuffer } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { didYouMean } from '../../base/nearest.js';
import { openRegularFile } from '../../base/regular-file.js';
import { badData, unreadable } from '../data-error.js';

/**
 * A column of a Parquet file, the rows of a row group at a time.
 * @throws MbridgeError MB_DATA_PARQUET (exit 7) where it is damaged or has no such column
 */
export async function* parquetTexts(
  path: string,
  column: string,
  onRead: (bytes: number) => void,
): AsyncGenerator<unknown[]> {
  const { file, close } = openParquet(path);
  const fail = (found: string, hint: string): Error => badData('MB_DATA_PARQUET', path, found, hint);
  const damaged = (cause: unknown): Error => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return fail(`cannot be read: ${reason}`, 'the file is cut or damaged, or packed in an unusual way: write it again');
  };
  try {
    const metadata = await parquetMetadataAsync(file).catch((cause: unknown) => {
      throw damaged(cause);
    });
    const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
    if (!columns.includes(column)) {
      const has = columns.slice(0, 12).join(', ');
      throw fail(`has no column ${column}${didYouMean(column, columns)}; columns: ${has}`, 'name one with --field');
    }
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const options = { file, metadata, columns: [column], rowStart, rowEnd, compressors };
      const rows = await parquetReadObjects(options).catch((cause: unknown) => {
        throw damaged(cause);
      });
      if (rows.length !== rowEnd - rowStart) throw damaged(`${rows.length} of ${rowEnd - rowStart} rows`);
      yield rows.map((row) => row[column] as unknown);
      rowStart = rowEnd;
      onRead(file.byteLength / metadata.row_groups.length);
    }
  } finally {
    close();
  }
}

function openParquet(path: string): { file: AsyncBuffer; close: () => void } {
  let opened: { fd: number; bytes: number };
  try {
    opened = openRegularFile(path);
  } catch (cause) {
    throw unreadable(path, cause, '--input');
  }
  const { fd, bytes } = opened;
  const slice = (start: number, end = bytes): ArrayBuffer => {
    const part = new Uint8Array(Math.max(0, Math.min(end, bytes) - start));
    for (let done = 0; done < part.length;) {
      const got = readSync(fd, part, done, part.length - done, start + done);
      if (got === 0) throw new Error('the file ends too early');
      done += got;
    }
    return part.buffer;
  };
  return { file: { byteLength: bytes, slice }, close: () => closeSync(fd) };
}
