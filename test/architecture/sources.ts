import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import ts from 'typescript';
import { ROOT } from './table.js';

export interface Import {
  /** A file of ours (`src/errors.ts`), a package (`zod`), or a module of Node's (`node:fs`). */
  readonly target: string;
  /** Gone after compilation. */
  readonly typesOnly: boolean;
}

/** Files under a folder with one of these endings, from the repository's root. */
export function filesIn(folder: string, endings: readonly string[]): string[] {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .filter((name) => !name.startsWith('native/build/'))
    .sort();
}

export function parse(file: string): ts.SourceFile {
  return ts.createSourceFile(file, readFileSync(join(ROOT, file), 'utf8'), ts.ScriptTarget.Latest, true);
}

function importsNoValue(node: ts.ImportDeclaration | ts.ExportDeclaration): boolean {
  if (ts.isExportDeclaration(node)) {
    const { exportClause } = node;
    const named = exportClause !== undefined && ts.isNamedExports(exportClause);
    return node.isTypeOnly || (named && exportClause.elements.every((element) => element.isTypeOnly));
  }
  const clause = node.importClause;
  if (clause === undefined) return false;
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true;
  const { name, namedBindings } = clause;
  if (name !== undefined || namedBindings === undefined || !ts.isNamedImports(namedBindings)) return false;
  return namedBindings.elements.length > 0 && namedBindings.elements.every((element) => element.isTypeOnly);
}

function resolve(file: string, specifier: string): string {
  if (!specifier.startsWith('.')) {
    return specifier.startsWith('node:')
      ? specifier
      : specifier
          .split('/')
          .slice(0, specifier[0] === '@' ? 2 : 1)
          .join('/');
  }
  const path = normalize(join(dirname(file), specifier));
  const source = path.replace(/^dist\//, '').replace(/\.js$/, '.ts');
  return existsSync(join(ROOT, source)) ? source : path;
}

/** Every import of a TypeScript or JavaScript file, `import()` calls and `import('...')` types included. */
export function importsOf(file: string): Import[] {
  const found: Import[] = [];
  const add = (specifier: ts.Node | undefined, typesOnly: boolean): void => {
    if (specifier !== undefined && ts.isStringLiteral(specifier)) {
      found.push({ target: resolve(file, specifier.text), typesOnly });
    }
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, importsNoValue(node));
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false);
    } else if (ts.isImportTypeNode(node)) {
      add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined, true);
    }
    ts.forEachChild(node, visit);
  };
  visit(parse(file));
  return found;
}

/** `#include "..."` of a native file: from native/, or from beside it. System headers are left out. */
export function includesOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/^#include "([^"]+)"/gm)].map((match) => {
    const beside = normalize(join(dirname(file), match[1] as string));
    const target = existsSync(join(ROOT, beside)) ? beside : join('native', match[1] as string);
    return { target, typesOnly: false };
  });
}
