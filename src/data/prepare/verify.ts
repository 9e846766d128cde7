import { badData } from '../data-error.js';
import { IndexedReader } from '../indexed/reader.js';
import { readSidecar, type Sidecar } from './sidecar.js';

/**
 * Reads all of a pair: that its files fit each other, that every id is of the vocabulary, and that every document ends
 * as PREFIX.json says. Without PREFIX.json only the first, and that no id is negative.
 * @throws MbridgeError MB_DATA_INDEX, MB_DATA_UNREADABLE (exit 7) with the first thing that is wrong
 */
export function verifyPair(prefix: string): { documents: number; tokens: number; sidecar: boolean } {
  const sidecar = readSidecar(prefix);
  const reader = new IndexedReader(prefix);
  try {
    const { documents, tokens, dtype } = reader;
    for (const [key, found] of Object.entries({ documents, tokens, dtype })) {
      const said = sidecar?.[key as 'documents' | 'tokens' | 'dtype'] ?? found;
      if (said !== found) throw wrong(`${prefix}.json`, `says ${key} ${said}, the pair has ${found}`);
    }
    for (let i = 0; i < reader.lengths.length; i++) checkSequence(reader, i, sidecar);
    return { documents, tokens, sidecar: sidecar !== undefined };
  } finally {
    reader.close();
  }
}

function checkSequence(reader: IndexedReader, index: number, sidecar: Sidecar | undefined): void {
  const ids = reader.sequence(index);
  const path = `${reader.prefix}.bin`;
  const size = sidecar?.tokenizer.vocab_size ?? Infinity;
  const bad = ids.findIndex((id) => id < 0 || id >= size);
  if (bad >= 0)
    throw wrong(path, `token ${ids[bad]} at ${bad} of sequence ${index} is not in the vocabulary of ${size}`);
  const eod = sidecar?.eod ?? null;
  if (eod !== null && ids.at(-1) !== eod)
    throw wrong(path, `sequence ${index} does not end with ${eod}, as every document does`);
}

function wrong(path: string, found: string): Error {
  return badData(
    'MB_DATA_INDEX',
    path,
    found,
    'the files were damaged or mixed up: write the pair again (mbridge data prepare)',
  );
}
