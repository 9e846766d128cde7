import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findCodes } from './error-codes.js';
import { ROOT } from './fences.js';

/** The rows of docs/errors.md: code, exit codes, when, what to do. */
const rows = [
  ...readFileSync(join(ROOT, 'docs/errors.md'), 'utf8').matchAll(/^\| `(MB_\w+)` \| ([\d, ]+) \| (.+?) \| (.+?) \|$/gm),
].map(([, code, exits]) => ({ code: code!, exits: exits!.split(',').map(Number) }));
const documented = new Map(rows.map(({ code, exits }) => [code, exits]));
const found = findCodes();

test('docs/errors.md has a row for every code that the sources can end with', () => {
  const missing = [...found].filter(([code]) => !documented.has(code)).sort();
  const add = missing.map(([code, { files, exits }]) => {
    const exit = [...exits].sort().join(', ') || 'its exit code';
    return `| \`${code}\` | ${exit} | when (see ${[...files].join(', ')}) | what to do |`;
  });
  expect(add, `add to docs/errors.md:\n${add.join('\n')}`).toEqual([]);
});

test('and no other row, each once', () => {
  const gone = rows.map(({ code }) => code).filter((code) => !found.has(code));
  expect(gone, `no source has ${gone.join(', ')}: take the row out of docs/errors.md`).toEqual([]);
  expect(rows).toHaveLength(documented.size);
});

test('the exit codes are those that the sources give', () => {
  const wrong = [...found].flatMap(([code, { exits }]) => {
    const listed = documented.get(code) ?? [];
    const missing = [...exits].filter((exit) => !listed.includes(exit));
    return listed.length === 0 || missing.length === 0 ? [] : [`${code}: add exit code ${missing.join(', ')}`];
  });
  expect(wrong).toEqual([]);
});

test('rows stand in the order of the alphabet within their section', () => {
  const sections = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8').split(/^## /m);
  for (const section of sections) {
    const codes = [...section.matchAll(/^\| `(MB_\w+)`/gm)].map((match) => match[1]!);
    expect(codes).toEqual([...codes].sort());
  }
});
