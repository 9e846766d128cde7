// node scripts/check-native-dialect.mjs [folder]: what the code of native/ does everywhere and clang-format does not see.
// Every exception is named with file and line; exit code 1 if there is one.
import { existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { native, nativeFiles } from './native-sources.mjs';

const folder = process.argv[2] === undefined ? native : resolve(process.argv[2]);
let found = 0;

function report(file, line, message) {
  found++;
  console.error(`native/${file}:${line}: ${message}`);
}

/** Rules of single lines: what must not match, where, and what to write instead. */
const LINES = [
  [/^\s*\/\*/, () => true, 'comments begin with //'],
  [/\bNULL\b/, () => true, 'write nullptr'],
  [/\busing namespace std\b/, () => true, 'write std:: where it is used'],
  [/\busing namespace\b/, isHeader, 'a header imposes no namespace on what includes it'],
  [/^(inline )?namespace (?!mb\b|\{|\w+ =)/, () => true, 'named namespaces are mb, or in it'],
  [/^#define (?!MB_)/, (file) => isHeader(file) && !/(^|\/)tests\//.test(file), "a header's macros begin with MB_"],
];

function isHeader(file) {
  return /\.(h|cuh)$/.test(file);
}

for (const file of nativeFiles(folder)) {
  if (!/^([a-z0-9_]+\.(h|cc|cu|cuh|def|map)|CMakeLists\.txt)$/.test(basename(file))) {
    report(file, 1, 'files are named in snake_case, and end in .h, .cc, .cu or .cuh');
  }
  if (!/\.(h|cc|cu|cuh)$/.test(file)) continue;
  const lines = readFileSync(join(folder, file), 'utf8').split('\n');
  const first = lines.findIndex((line) => line !== '' && !line.startsWith('//'));
  if (isHeader(file) && lines[first] !== '#pragma once') {
    report(file, first + 1, 'a header begins with #pragma once, after its comment');
  }
  lines.forEach((line, at) => {
    for (const [pattern, applies, message] of LINES) {
      if (pattern.test(line) && applies(file)) report(file, at + 1, message);
    }
    const included = /^#include "(.*)"/.exec(line)?.[1];
    if (included !== undefined && (included.includes('..') || !existsSync(join(folder, included)))) {
      report(file, at + 1, `"${included}" is no path from native/`);
    }
  });
}
process.exitCode = found === 0 ? 0 : 1;
