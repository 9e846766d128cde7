import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '../..');

/** One line of the table in docs/architecture.md. A path ends in `/` (a folder), in `*` (a prefix), or is one file. */
export interface Row {
  readonly paths: readonly string[];
  readonly mayImport: readonly { readonly target: string; readonly typesOnly: boolean }[];
  readonly neverReaches: readonly string[];
}

function codes(cell: string | undefined): string[] {
  return [...(cell ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1] as string);
}

export function readTable(): Row[] {
  const lines = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8').split('\n');
  return lines
    .filter((line) => line.startsWith('| `'))
    .map((line) => {
      const [, paths, , imports, reach] = line.split('|');
      return {
        paths: codes(paths),
        mayImport: codes(imports).map((text) => ({
          target: text.replace(/ \(types\)$/, ''),
          typesOnly: text.endsWith(' (types)'),
        })),
        neverReaches: codes(reach),
      };
    });
}

export function covers(pattern: string, file: string): boolean {
  if (pattern.endsWith('/')) return file.startsWith(pattern);
  return pattern.endsWith('*') ? file.startsWith(pattern.slice(0, -1)) : file === pattern;
}

/** The row of a file, a package or `node:...`: that of its longest path. Undefined where none covers it. */
export function rowOf(rows: readonly Row[], file: string): Row | undefined {
  const length = (row: Row): number => Math.max(0, ...row.paths.filter((p) => covers(p, file)).map((p) => p.length));
  return rows.reduce<Row | undefined>(
    (best, row) => (length(row) > (best === undefined ? 0 : length(best)) ? row : best),
    undefined,
  );
}
