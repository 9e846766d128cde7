import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, expect, test } from 'vitest';

const SCRIPT = join(import.meta.dirname, '..', '..', 'scripts', 'check-native-dialect.mjs');

const folder = mkdtempSync(join(tmpdir(), 'mbridge-dialect-'));
afterAll(() => rmSync(folder, { recursive: true }));

const CLEAN = '// Why.\n#pragma once\n#include <vector>\n\n#include "core/a.h"\n\nnamespace mb::x {}\n';
/** A file of native/, and what is said of it. */
const CASES: [file: string, text: string, said: string][] = [
  ['core/NotSnake.cc', '', ':1: files are named in snake_case'],
  ['core/a.cpp', '', ':1: files are named in snake_case'],
  ['core/b.h', '// Why.\n\n#ifndef B_H\n', ':3: a header begins with #pragma once'],
  ['core/c.cc', '\n#include "a.h"\n', ':2: "a.h" is no path from native/'],
  ['cpu/d.cc', '#include "../core/a.h"\n', ':1: "../core/a.h" is no path from native/'],
  ['core/e.cuh', '#pragma once\nusing namespace mb;\n', ':2: a header imposes no namespace'],
  ['core/f.cu', '\n\nusing namespace std;\n', ':3: write std::'],
  ['core/g.cc', 'namespace mbridge {}\n', ':1: named namespaces are mb, or in it'],
  ['core/h.h', '#pragma once\n#define TWICE(x) x x\n', ":2: a header's macros begin with MB_"],
  ['core/i.cc', 'int* p = NULL;\n', ':1: write nullptr'],
  ['core/j.cc', '\n  /* Why. */\n', ':2: comments begin with //'],
];

test('every exception to the dialect of native/ is named with file and line, and what keeps to it is not', async () => {
  const files = [
    ...CASES,
    ['core/a.h', CLEAN],
    ['build/k.cpp', ''],
    ['tests/l.h', '#pragma once\n#define CHECK(x) x\n'],
  ];
  for (const [file = '', text = ''] of files) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), text);
  }
  const { exitCode, stderr } = await execa(process.execPath, [SCRIPT, folder], { reject: false });
  expect(exitCode).toBe(1);
  const lines = stderr.split('\n').sort();
  const expected = CASES.map(([file, , said]) => `native/${file}${said}`).sort();
  expect(lines.map((line, i) => line.slice(0, expected[i]?.length))).toEqual(expected);
});

test('native/ keeps to it', async () => {
  expect(await execa(process.execPath, [SCRIPT], { reject: false })).toMatchObject({ exitCode: 0, stderr: '' });
});
