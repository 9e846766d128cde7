import { statSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { glob, isDynamicPattern } from 'tinyglobby';
import { MbridgeError } from '../../base/errors.js';
import { unreadable } from '../data-error.js';

/** How the documents of a file are found. */
export type InputKind = 'text' | 'lines' | 'array' | 'parquet' | 'arrow';

const KINDS: Readonly<Record<string, InputKind>> = {
  txt: 'text',
  md: 'text',
  jsonl: 'lines',
  ndjson: 'lines',
  json: 'array',
  parquet: 'parquet',
  arrow: 'arrow',
};

/** A file of a corpus. */
export interface InputFile {
  readonly path: string;
  readonly kind: InputKind;
  readonly bytes: number;
  readonly mtimeMs: number;
}

/** What patterns match: files in the order of their paths, and how many of other kinds were left out. */
export interface Inputs {
  readonly files: readonly InputFile[];
  readonly others: readonly string[];
}

/**
 * The files that patterns, folders (all below) and paths name, each once, sorted by path.
 * @param output a prefix whose own files are no input
 * @throws MbridgeError MB_DATA_INPUT (exit 7) where a pattern matches none, or a file named in full is of no known kind
 */
export async function findInputs(patterns: readonly string[], output: string): Promise<Inputs> {
  const files = new Map<string, InputFile>();
  const others = new Set<string>();
  const own = resolve(output);
  for (const pattern of patterns) {
    const { paths, named } = await pathsOf(pattern);
    let matched = 0;
    for (const path of paths) {
      const full = resolve(path);
      if (full === `${own}.json` || full.startsWith(`${own}.parts/`)) continue;
      const kind = kindOf(path);
      if (kind === undefined && named) throw unknownKind(path);
      if (kind === undefined) others.add(path);
      else if (!files.has(full)) files.set(full, inputFile(path, kind));
      matched += Number(kind !== undefined);
    }
    if (matched === 0) throw noMatch(pattern, paths.length);
  }
  const sorted = [...files.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  return { files: sorted, others: [...others].sort() };
}

/** What a pattern matches; `named` where it is the path of one file. */
async function pathsOf(pattern: string): Promise<{ paths: string[]; named: boolean }> {
  const found = statSync(pattern, { throwIfNoEntry: false });
  if (found?.isDirectory() === true) {
    const below = await glob('**', { cwd: pattern, expandDirectories: false });
    return { paths: below.map((path) => join(pattern, path)), named: false };
  }
  if (found !== undefined || !isDynamicPattern(pattern)) return { paths: [pattern], named: true };
  return { paths: await glob(pattern, { absolute: isAbsolute(pattern), expandDirectories: false }), named: false };
}

function inputFile(path: string, kind: InputKind): InputFile {
  try {
    const { size, mtimeMs } = statSync(path);
    return { path, kind, bytes: size, mtimeMs };
  } catch (cause) {
    throw unreadable(path, cause, '--input');
  }
}

/** By its name; undefined for one that is not read. */
export function kindOf(path: string): InputKind | undefined {
  const [, ending = '', packed] = /\.([a-z\d]+)(\.(?:gz|gzip|zst|zstd))?$/i.exec(path) ?? [];
  const kind = Object.hasOwn(KINDS, ending.toLowerCase()) ? KINDS[ending.toLowerCase()] : undefined;
  // A table is read at any place, and packs its columns itself.
  return (kind === 'parquet' || kind === 'arrow') && packed !== undefined ? undefined : kind;
}

const READ = 'files that end in .txt, .md, .jsonl, .json (each also with .gz or .zst), .parquet or .arrow are read';

function unknownKind(path: string): MbridgeError {
  return new MbridgeError('io', 'MB_DATA_INPUT', `${path}: its name does not say how it is read`, {
    hint: `${READ}; rename it`,
    details: { path },
  });
}

function noMatch(pattern: string, others: number): MbridgeError {
  const found = others === 0 ? 'matches no file' : `matches ${others} files, none of a kind that is read`;
  return new MbridgeError('io', 'MB_DATA_INPUT', `--input ${pattern}: ${found}`, {
    hint: `${READ}; a relative path starts at the current directory (${process.cwd()})`,
    details: { pattern },
  });
}
