import type { Json } from './bpe-file.js';

const WORDS = String.raw`[^\r\n\p{L}\p{N}]?`;
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const CL100K = (digits: string): string =>
  String.raw`${CONTRACTIONS}|${WORDS}\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;

/** The regular expressions of one split each, with their number in native/tokenizer/bpe.h. */
const SPLITS: Readonly<Record<string, number>> = {
  [String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`]: 0,
  [CL100K(String.raw`\p{N}`)]: 1,
  [CL100K(String.raw`\p{N}{1,3}`)]: 2,
  [String.raw`${WORDS}${UPPER}*${LOWER}+${CONTRACTIONS}?|${WORDS}${UPPER}+${LOWER}*${CONTRACTIONS}?|\p{N}{1,3}|` +
  String.raw` ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`]: 3,
};

/** DeepSeek's, which has three splits after each other, and newlines that are not escaped. */
const DEEPSEEK = [
  String.raw`\p{N}{1,3}`,
  '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|' +
    ' ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+',
].join('\n\n');

/** How the words of a text are found. */
export interface Words {
  readonly pattern: number;
  readonly prefixSpace: boolean;
}

/** What a `pre_tokenizer` does, or why the native tokenizer does not do it. */
export function readWords(json: Json): Words | string {
  const steps = json?.type === 'Sequence' && Array.isArray(json['pretokenizers']) ? json['pretokenizers'] : [json];
  const bytes = steps.at(-1) as Json;
  if (bytes?.type !== 'ByteLevel') return 'its pre-tokenizer does not end in ByteLevel';
  // Absent counts as true.
  const own = bytes['use_regex'] !== false;
  const prefixSpace = bytes['add_prefix_space'] !== false;
  const splits = steps.slice(0, -1) as Json[];
  if (own) return splits.length === 0 ? { pattern: 0, prefixSpace } : 'it splits before ByteLevel, which splits too';
  if (prefixSpace) return 'ByteLevel puts a space before every word';
  const patterns: string[] = [];
  for (const split of splits) {
    const pattern = split?.type === 'Split' ? (split['pattern'] as Json)?.['Regex'] : undefined;
    // What a pattern leaves of the text is a word as well in the first case, and dropped in the second.
    const keeps = split?.['behavior'] === 'Isolated' && split['invert'] === false;
    const drops = split?.['behavior'] === 'Removed' && split['invert'] === true;
    if (typeof pattern !== 'string' || !(keeps || (drops && splits.length === 1))) {
      return 'it has a pre-tokenizer that is neither ByteLevel nor a split by a known pattern';
    }
    patterns.push(pattern);
  }
  const all = patterns.join('\n\n');
  const pattern = Object.hasOwn(SPLITS, all) ? SPLITS[all] : all === DEEPSEEK ? 4 : undefined;
  return pattern === undefined ? `it splits text by a pattern that is not known: ${all}` : { pattern, prefixSpace };
}
