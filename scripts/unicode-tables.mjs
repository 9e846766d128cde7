// Writes native/tokenizer/unicode_tables.h from the Unicode properties of this Node. `--check` only says whether the file
// is up to date. The classes are those of Unicode 16, as in the regular expressions of Hugging Face's tokenizers 0.23
// (Oniguruma 6.9.10): run it with a Node whose process.versions.unicode is 16 or 17.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const file = join(root, 'native', 'tokenizer', 'unicode_tables.h');
const CODE_POINTS = 0x110000;

/** What Unicode 17 added, in a class of a pattern. It also made a lower-case letter of another one: U+0295. */
const AFTER_16 = [
  String.raw`\u088f\u0c5c\u0cdc\u1acf-\u1add\u1ae0-\u1aeb\u20c1\u2b96\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1\ufbc3-\ufbd2`,
  String.raw`\ufd90\ufd91\ufdc8-\ufdce\u{10940}-\u{10959}\u{10ec5}-\u{10ec7}\u{10ed0}-\u{10ed8}\u{10efa}\u{10efb}`,
  String.raw`\u{11b60}-\u{11b67}\u{11db0}-\u{11ddb}\u{11de0}-\u{11de9}\u{16ea0}-\u{16eb8}\u{16ebb}-\u{16ed3}`,
  String.raw`\u{16ff2}-\u{16ff6}\u{187f8}-\u{187ff}\u{18d09}-\u{18d1e}\u{18d80}-\u{18df2}\u{1ccfa}-\u{1ccfc}`,
  String.raw`\u{1ceba}-\u{1ced0}\u{1cee0}-\u{1cef0}\u{1e6c0}-\u{1e6de}\u{1e6e0}-\u{1e6f5}\u{1e6fe}\u{1e6ff}`,
  String.raw`\u{1f6d8}\u{1f777}-\u{1f77a}\u{1f8d0}-\u{1f8d8}\u{1fa54}-\u{1fa57}\u{1fa8a}\u{1fa8e}\u{1fac8}`,
  String.raw`\u{1facd}\u{1faea}\u{1faef}\u{1fbfa}\u{2b73a}-\u{2b73f}\u{2cea2}-\u{2cead}\u{323b0}-\u{33479}`,
].join('');
// eslint-disable-next-line no-misleading-character-class -- a list of single code points
const after16 = new RegExp(`[${AFTER_16}]`, 'u');

/** What normal form C by Unicode 9 leaves alone: src/data/tokenizer/nfc.ts has the list. */
const nfc = readFileSync(join(root, 'src', 'data', 'tokenizer', 'nfc.ts'), 'utf8');
const after9 = new RegExp(
  `[${[...nfc.matchAll(/^ {2}String\.raw`(.*)`,$/gm)].map((match) => match[1]).join('')}]`,
  'u',
);

const CLASSES = [
  [1, /[\p{Lu}\p{Lt}]/u],
  [2, /\p{Ll}/u],
  [4, /[\p{Lm}\p{Lo}]/u],
  [8, /\p{M}/u],
  [16, /\p{N}/u],
  [32, /\p{P}/u],
  [64, /\p{S}/u],
  [128, /\p{White_Space}/u],
];

/** The class of a code point: a flag of native/tokenizer/unicode.h. */
function characterClass(c) {
  const text = String.fromCodePoint(c);
  if (c === 0x295) return 2;
  return after16.test(text) ? 0 : (CLASSES.find(([, pattern]) => pattern.test(text))?.[0] ?? 0);
}

const MAY_CHANGE = 255;

/** The place of each combining character among the canonical combining classes, from 1 on, by what normalizing moves. */
function combiningOrders(characters) {
  const moves = (a, b) => (a + b).normalize('NFD') === b + a;
  // U+0334 is of the lowest class and U+0345 of the highest: each combining character moves before or after one of them.
  const marks = characters.filter((c) => c.normalize('NFD') === c && (moves(c, '\u0334') || moves('\u0345', c)));
  const groups = [];
  for (const mark of marks) {
    const same = groups.find(([first]) => !moves(mark, first) && !moves(first, mark));
    if (same === undefined) groups.push([mark]);
    else same.push(mark);
  }
  groups.sort(([a], [b]) => (moves(a, b) ? 1 : -1));
  return new Map(groups.flatMap((group, i) => group.map((mark) => [mark, i + 1])));
}

/** For each code point: 0 where it stays whatever is around it, its combining order, or MAY_CHANGE. */
function composition() {
  const characters = [];
  for (let c = 0; c < CODE_POINTS; c++) {
    const text = String.fromCodePoint(c);
    if ((c < 0xd800 || c > 0xdfff) && !after9.test(text)) characters.push(text);
  }
  const values = new Uint8Array(CODE_POINTS);
  const orders = combiningOrders(characters);
  for (const c of characters) {
    values[c.codePointAt(0)] = c.normalize('NFC') === c ? (orders.get(c) ?? 0) : MAY_CHANGE;
  }
  for (const c of characters) {
    const parts = [...c.normalize('NFD')];
    // What can be composed with a character before it.
    if (c.normalize('NFC') === c && parts.length > 1) values[parts.at(-1).codePointAt(0)] = MAY_CHANGE;
  }
  return values;
}

function ranges(name, values) {
  const lines = [''];
  let start = 0;
  for (let c = 1; c <= CODE_POINTS; c++) {
    if (c < CODE_POINTS && values[c] === values[start]) continue;
    const range = `${(c - start) * 256 + values[start]},`;
    if (lines.at(-1).length + range.length > 120) lines.push('');
    lines.push(`${lines.pop()}${range}`);
    start = c;
  }
  return `inline constexpr uint32_t ${name}[] = {\n${lines.join('\n')}\n};\n`;
}

const classes = Uint8Array.from({ length: CODE_POINTS }, (_, c) => (c < 0xd800 || c > 0xdfff ? characterClass(c) : 0));
const text = `// Made by scripts/unicode-tables.mjs. Ranges of code points, from the first on: how many, times 256, plus their
// value.
#pragma once
#include <cstdint>

namespace mb::tokenizer {

// clang-format off

// Unicode 16: the class, a flag of unicode.h.
${ranges('kClassRanges', classes)}
// Unicode 9: kMayChange where normal form C may change the character or what is before it; else its place in the order of
// combining characters, 0 where it is none.
inline constexpr uint8_t kMayChange = ${MAY_CHANGE};
${ranges('kCompositionRanges', composition())}
// clang-format on

}  // namespace mb::tokenizer
`;

if (process.argv.includes('--check')) {
  if (readFileSync(file, 'utf8') !== text) {
    console.error('native/tokenizer/unicode_tables.h is not what scripts/unicode-tables.mjs writes: run it');
    process.exit(1);
  }
} else {
  writeFileSync(file, text);
}
