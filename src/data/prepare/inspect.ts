import type { TokenType } from '../indexed/format.js';
import { TokenFile } from '../indexed/token-file.js';
import type { Tokenizer } from '../tokenizer.js';
import { checkBelongs, readSidecar, type Sidecar } from '../indexed/sidecar.js';

/** Looked through for the range of ids; of a larger pair every n-th document, so that it is about as much. */
const LOOKED_TOKENS = 64 << 20;
const SAMPLE_TOKENS = 64;

/** What a pair holds. */
export interface PairSummary {
  readonly prefix: string;
  /** Of a pair of conversations, these: what says who speaks is not counted. */
  readonly documents: number;
  readonly tokens: number;
  readonly dtype: TokenType;
  /** Lowest and highest id of `looked` documents; null where they have no token. */
  readonly range: readonly [lowest: number, highest: number] | null;
  readonly looked: number;
  /** Of the documents, in tokens; null where there are none. */
  readonly lengths: { readonly least: number; readonly median: number; readonly most: number } | null;
  /** Documents of `from` to `to` tokens. */
  readonly histogram: readonly { readonly from: number; readonly to: number; readonly count: number }[];
  /** PREFIX.json, null where there is none. */
  readonly sidecar: Sidecar | null;
  /** Beginnings of documents as text, spread over the pair; empty without a tokenizer. */
  readonly samples: readonly { readonly document: number; readonly text: string }[];
}

/**
 * @param options.tokenizer of the samples; it must be the one that made the pair
 * @throws MbridgeError MB_DATA_INDEX, MB_DATA_UNREADABLE (exit 7), MB_DATA_TOKENIZER (exit 3)
 */
export function inspectPair(
  prefix: string,
  { tokenizer, samples }: { readonly tokenizer?: Tokenizer | undefined; readonly samples: number },
): PairSummary {
  const sidecar = readSidecar(prefix);
  if (sidecar !== undefined && tokenizer !== undefined) checkBelongs(prefix, sidecar, tokenizer);
  const file = new TokenFile(prefix, Infinity);
  try {
    // Of a conversation every other document is a mask.
    const step = sidecar?.content === 'chat' ? 2 : 1;
    const [documents, tokens, dtype] = [file.documents / step, file.tokens / step, file.type];
    const lengths = Float64Array.from({ length: documents }, (_, i) => file.lengthOf(i * step));
    const sorted = lengths.toSorted();
    const at = (i: number): number => sorted[i] as number;
    const last = sorted.length - 1;
    return {
      ...{ prefix, documents, tokens, dtype, ...rangeOf(file, step) },
      lengths: last < 0 ? null : { least: at(0), median: at(last >> 1), most: at(last) },
      histogram: histogramOf(lengths),
      sidecar: sidecar ?? null,
      samples: tokenizer === undefined ? [] : samplesOf(file, tokenizer, samples, step),
    };
  } finally {
    file.close();
  }
}

function rangeOf(file: TokenFile, step: number): Pick<PairSummary, 'range' | 'looked'> {
  const every = step * Math.max(1, Math.ceil(file.tokens / step / LOOKED_TOKENS));
  let [lowest, highest, looked] = [Infinity, -Infinity, 0];
  for (let i = 0; i < file.documents; i += every) {
    for (const id of file.document(i)) {
      lowest = Math.min(lowest, id);
      highest = Math.max(highest, id);
    }
    looked++;
  }
  return { range: lowest > highest ? null : [lowest, highest], looked };
}

/** By powers of two: 0, 1, 2 to 3, 4 to 7, ... */
function histogramOf(lengths: Float64Array): PairSummary['histogram'] {
  const counts: number[] = [];
  for (const length of lengths) {
    const bin = 32 - Math.clz32(length);
    counts[bin] = (counts[bin] ?? 0) + 1;
  }
  return counts.flatMap((count, bin) => {
    return count === 0 ? [] : [{ from: bin === 0 ? 0 : 2 ** (bin - 1), to: 2 ** bin - 1, count }];
  });
}

function samplesOf(file: TokenFile, tokenizer: Tokenizer, count: number, step: number): PairSummary['samples'] {
  const total = file.documents / step;
  const shown = Math.min(count, total);
  return Array.from({ length: shown }, (_, i) => {
    const document = Math.floor((i * total) / shown);
    return { document, text: tokenizer.decode(file.document(document * step, SAMPLE_TOKENS)) };
  });
}
