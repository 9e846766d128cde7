import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';
import { mutableModuleState } from './module-state.js';
import { filesIn, importsOf, includesOf, parse, type Import } from './sources.js';
import { ROOT, covers, readTable, rowOf, type Row } from './table.js';

const SCRIPTS = ['bin', 'src', 'recipes', 'examples', 'bench', 'scripts'].flatMap((folder) =>
  filesIn(folder, ['.ts', '.js', '.mjs']),
);
const NATIVE = filesIn('native', ['.cc', '.h', '.cu', '.cuh']);
const TESTS = filesIn('test', ['.ts', '.mjs']);

const table = readTable();
const imports = new Map<string, readonly Import[]>([
  ...SCRIPTS.map((file) => [file, importsOf(file)] as const),
  ...NATIVE.map((file) => [file, includesOf(file)] as const),
]);

/** Whether what a row may import is about this file, package or module. */
function names({ target }: Row['mayImport'][number], imported: string): boolean {
  const other = rowOf(table, imported);
  // A folder does not stand for the more specific rows inside it.
  return other === undefined ? covers(target, imported) : other.paths.includes(target);
}

function allows(row: Row, { target, typesOnly }: Import): boolean {
  if (rowOf(table, target) === row) return true;
  return row.mayImport.some((allowed) => names(allowed, target) && (typesOnly || !allowed.typesOnly));
}

/** Files, packages and Node modules that are loaded, at once or later, when `file` is; with the way to them. */
function reached(file: string): Map<string, string> {
  const ways = new Map([[file, file]]);
  for (const [at, way] of ways) {
    for (const { target, typesOnly } of imports.get(at) ?? []) {
      if (!typesOnly && !ways.has(target)) ways.set(target, `${way} -> ${target}`);
    }
  }
  return ways;
}

describe('docs/architecture.md', () => {
  test('every row has a file, and every file a row', () => {
    const files = [...imports.keys()];
    const paths = table.flatMap((row) => row.paths);
    expect(paths.filter((path) => !files.some((file) => covers(path, file)))).toEqual([]);
    expect(files.filter((file) => rowOf(table, file) === undefined)).toEqual([]);
    expect(new Set(paths).size).toBe(paths.length);
  });

  test('what a row may import and never reaches is named as it is elsewhere', () => {
    const paths = new Set(table.flatMap((row) => row.paths));
    const names = table.flatMap((row) => [...row.mayImport.map(({ target }) => target), ...row.neverReaches]);
    const ours = names.filter((name) => name.includes('/') && !/^(node:|@)/.test(name));
    expect(ours.filter((name) => !paths.has(name))).toEqual([]);
  });

  test('no file imports what its row does not list', () => {
    const wrong = [...imports].flatMap(([file, list]) => {
      const row = rowOf(table, file);
      return row === undefined
        ? []
        : list.filter((each) => !allows(row, each)).map(({ target }) => `${file} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test('no row lists what none of its files imports, nor in full what they import as types only', () => {
    const unused = table.flatMap((row) => {
      const own = [...imports].flatMap(([file, list]) => (rowOf(table, file) === row ? list : []));
      return row.mayImport
        .filter((allowed) => !own.some((each) => names(allowed, each.target) && (allowed.typesOnly || !each.typesOnly)))
        .map(({ target }) => `${row.paths.join(', ')} does not need ${target}`);
    });
    expect(unused).toEqual([]);
  });

  test('no file loads, also through others, what its row never reaches', () => {
    const wrong = [...imports.keys()].flatMap((file) => {
      const row = rowOf(table, file);
      const banned = row?.neverReaches ?? [];
      return [...reached(file)]
        .filter(([target]) => banned.some((path) => covers(path, target) && rowOf(table, target) !== row))
        .map(([, way]) => way);
    });
    expect(wrong).toEqual([]);
  });

  test('a row imports only rows below it, types included', () => {
    const floor = new Map(table.flatMap((row, i) => row.paths.map((path) => [path, i] as const)));
    const up = table.flatMap((row, i) =>
      row.mayImport
        .filter(({ target }) => (floor.get(target) ?? Infinity) < i)
        .map(({ target }) => `${row.paths.join(', ')} imports ${target}`),
    );
    expect(up).toEqual([]);
  });

  test('no room holds more than a quarter of src/', () => {
    const lines = new Map<string, number>();
    for (const file of SCRIPTS.filter((file) => file.startsWith('src/'))) {
      const room = file.split('/')[1] as string;
      lines.set(room, (lines.get(room) ?? 0) + readFileSync(join(ROOT, file), 'utf8').split('\n').length);
    }
    const total = [...lines.values()].reduce((sum, count) => sum + count, 0);
    expect([...lines].filter(([, count]) => count > total / 4)).toEqual([]);
  });
});

test('no two files need each other at run time', () => {
  const cyclic = SCRIPTS.filter((file) => {
    return (imports.get(file) ?? []).some(
      ({ target, typesOnly }) => !typesOnly && target !== file && imports.has(target) && reached(target).has(file),
    );
  });
  expect(cyclic).toEqual([]);
});

describe('no module-level mutable state', () => {
  const files = SCRIPTS.filter((file) => /^(src|recipes|examples)\//.test(file));

  test('in the sources', () => {
    const found = files.flatMap((file) => mutableModuleState(parse(file)).map((problem) => `${file}:${problem}`));
    expect(found).toEqual([]);
  });

  test.each([
    ['let count = 0;', 'count is not const'],
    ['export var count = 0;', 'count is not const'],
    ['const cache = new Map(); function f() { cache.set(1, 2); }', 'cache is changed'],
    ['const list = []; export const f = () => list.push(1);', 'list is changed'],
    ['const state = { n: 0 }; function f() { state.n++; }', 'state is changed'],
    ['const state = { n: [0] }; function f() { state.n[0] = 1; }', 'state is changed'],
    ['export const NAMES = ["a"];', 'NAMES is exported and not readonly'],
    ['class A { static count = 0; }', 'static count is not readonly'],
    ['export const NAMES: readonly string[] = ["a"];', undefined],
    ['export const NAMES = ["a"] as const;', undefined],
    ['const WORDS = new Set(["a"]); export const f = (x) => WORDS.has(x);', undefined],
    ['function f() { let n = 0; const m = new Map(); m.set(n, 1); }', undefined],
  ])('is seen in %s', (text, problem) => {
    const found = mutableModuleState(ts.createSourceFile('x.ts', text, ts.ScriptTarget.Latest, true));
    expect(found).toEqual(problem === undefined ? [] : [`1: ${problem}`]);
  });
});

test('files are short and named in kebab-case', () => {
  const wrong = [...SCRIPTS, ...TESTS, ...NATIVE].flatMap((file) => {
    const lines = readFileSync(join(ROOT, file), 'utf8').split('\n').length - 1;
    const isScript = /\.(ts|js|mjs)$/.test(file);
    return [
      ...(lines > 350 ? [`${file} has ${lines} lines`] : []),
      ...(isScript && !/^[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.\w+$/.test(basename(file))
        ? [`${file} is not kebab-case`]
        : []),
    ];
  });
  expect(wrong).toEqual([]);
});
