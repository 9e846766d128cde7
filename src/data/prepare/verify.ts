import { badData } from '../data-error.js';
import { TokenFile } from '../indexed/token-file.js';
import { readSidecar, type Sidecar } from '../indexed/sidecar.js';

/**
 * Reads all of a pair: that its files fit each other, that every id is of the vocabulary, and that every document ends
 * as PREFIX.json says. Without PREFIX.json only the first, and that no id is negative; `content` is null then.
 * @throws MbridgeError MB_DATA_INDEX, MB_DATA_UNREADABLE (exit 7) with the first thing that is wrong
 */
export function verifyPair(
  prefix: string,
): Pick<Sidecar, 'documents' | 'tokens'> & { readonly content: Sidecar['content'] | null } {
  const sidecar = readSidecar(prefix);
  const file = new TokenFile(prefix, sidecar?.tokenizer.vocab_size ?? Infinity);
  try {
    const { documents, tokens, type: dtype } = file;
    for (const [key, found] of Object.entries({ documents, tokens, dtype })) {
      const said = sidecar?.[key as 'documents' | 'tokens' | 'dtype'] ?? found;
      if (said !== found) throw wrong(`${prefix}.json`, `says ${key} ${said}, the pair has ${found}`);
    }
    for (let i = 0; i < documents; i++) checkDocument(file, i, sidecar?.eod ?? null);
    return { documents, tokens, content: sidecar?.content ?? null };
  } finally {
    file.close();
  }
}

/** Reads it, by which its tokens are checked. */
function checkDocument(file: TokenFile, index: number, eod: number | null): void {
  const last = file.document(index).at(-1);
  if (eod === null || last === eod) return;
  throw wrong(`${file.prefix}.bin`, `document ${index} does not end with ${eod}, as every document does`);
}

function wrong(path: string, found: string): Error {
  return badData(
    'MB_DATA_INDEX',
    path,
    found,
    'the files were damaged or mixed up: write the pair again (mbridge data prepare)',
  );
}
