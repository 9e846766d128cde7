import { sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from './package-root.js';

/** Folders of this package whose code is ours; examples and tests are programs like any other. */
const OURS = ['bin', 'dist/src', 'dist/recipes', 'src', 'recipes'];

/**
 * Where a program that uses the library threw `error` itself: `file:line` of its own code. Undefined for what our code
 * threw, whoever called it, and where the stack does not tell.
 */
export function thrownByProgram(error: unknown): string | undefined {
  const stack = error instanceof Error ? error.stack : undefined;
  const root = packageRoot() + sep;
  for (const [, place = '', line] of stack?.matchAll(
    /^ {4}at (?:async )?(?:.*\()?((?:file:\/\/|\/)[^()\n]*?):(\d+)(?::\d+)?\)?$/gm,
  ) ?? []) {
    const file = place.startsWith('file:') ? fileURLToPath(place.replace(/[?#].*$/, '')) : place;
    if (OURS.some((folder) => file.startsWith(root + folder + sep))) return undefined;
    // A package that either of us calls.
    if (file.includes(`${sep}node_modules${sep}`)) continue;
    return `${file}:${line}`;
  }
  return undefined;
}
