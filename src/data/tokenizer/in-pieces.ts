import type { TokenizerFolder } from './tokenizer-folder.js';

/** Characters of a text from which on it is cut: the engine holds some 30 bytes for each of them at once. */
const PIECE = 1 << 20;

/**
 * `encode` for texts of any length, cut where the ids do not change: between a line's end and a letter, which the
 * patterns of GPT-2's kind (Qwen's, Llama 3's, DeepSeek's and so on) never put into one token. As it is for others.
 */
export function inPieces(
  encode: (text: string) => Int32Array,
  folder: TokenizerFolder,
  size = PIECE,
): (text: string) => Int32Array {
  if (!cutsAtLines(folder)) return encode;
  return (text) => {
    if (text.length <= size) return encode(text);
    const parts: Int32Array[] = [];
    for (let start = 0; start < text.length;) {
      const end = nextCut(text, start + size);
      parts.push(encode(text.slice(start, end)));
      start = end;
    }
    const all = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
}

function nextCut(text: string, from: number): number {
  const found = /\n[A-Za-z]/g;
  found.lastIndex = from;
  const at = found.exec(text)?.index;
  return at === undefined ? text.length : at + 1;
}

function cutsAtLines({ tokenizer }: TokenizerFolder): boolean {
  const before = JSON.stringify(tokenizer['pre_tokenizer'] ?? null);
  // The pattern itself, or the pre-tokenizer that has it built in.
  const ofKind = before.includes('\\\\s+(?!\\\\S)') || /"type":"ByteLevel"[^}]*"use_regex":true/.test(before);
  // An added token may hold a line's end, or take it away.
  const added = tokenizer.added_tokens.every((token) => {
    return !token.content.includes('\n') && (token as { lstrip?: boolean }).lstrip !== true;
  });
  return ofKind && before.includes('"ByteLevel"') && added && keepsLines(tokenizer['normalizer']);
}

function keepsLines(normalizer: unknown): boolean {
  const types = [...JSON.stringify(normalizer ?? null).matchAll(/"type":"(\w+)"/g)].map((match) => match[1]);
  return types.every((type) => type === 'NFC' || type === 'Sequence');
}
