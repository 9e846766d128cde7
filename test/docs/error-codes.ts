import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { EXIT, type ExitKind } from '../../src/base/errors.js';
import { filesIn, parse } from '../architecture/sources.js';
import { ROOT } from './fences.js';

/** A code that the sources can end with: where it stands, and the exit codes that it is given there. */
export interface FoundCode {
  readonly files: Set<string>;
  readonly exits: Set<number>;
}

/** Beginnings that get `_OPEN`, `_READ` or `_WRITE` (fileError in safetensors-error.ts). */
const FILE_FAMILIES = ['MB_SAFETENSORS', 'MB_CHECKPOINT'];
const CODE = /^MB_[A-Z0-9]+(_[A-Z0-9]+)*$/;

/** A function that makes errors of the code that it is given: `gridError('SIZE', ...)` is MB_GRID_SIZE. */
interface Maker {
  readonly name: string;
  readonly file: string;
  readonly exported: boolean;
  readonly parameter: number;
  readonly prefix: string;
  readonly exit: number | undefined;
}

function literal(node: ts.Node | undefined): string | undefined {
  return node !== undefined && ts.isStringLiteralLike(node) ? node.text : undefined;
}

function enclosing(node: ts.Node): ts.SignatureDeclaration | undefined {
  for (let at = node.parent; !ts.isSourceFile(at); at = at.parent) if (ts.isFunctionLike(at)) return at;
  return undefined;
}

function nameOf(fn: ts.SignatureDeclaration): string | undefined {
  if (fn.name !== undefined) return fn.name.getText();
  return ts.isVariableDeclaration(fn.parent) ? fn.parent.name.getText() : undefined;
}

/** The maker of which `code`, the second argument of a `new MbridgeError`, is a parameter. */
function makerOf(file: string, code: ts.Expression, exit: number | undefined): Maker | undefined {
  let [prefix, parameter] = ['', code];
  if (ts.isTemplateExpression(code) && code.templateSpans.length === 1) {
    prefix = code.head.text;
    parameter = code.templateSpans[0]!.expression;
  }
  const fn = enclosing(code);
  const index = fn?.parameters.findIndex(({ name }) => name.getText() === parameter.getText()) ?? -1;
  const name = fn === undefined ? undefined : nameOf(fn);
  if (fn === undefined || index < 0 || name === undefined) return undefined;
  const exported =
    ts.isFunctionDeclaration(fn) && (fn.modifiers ?? []).some((m) => m.kind === ts.SyntaxKind.ExportKeyword);
  return { name, file, exported, parameter: index, prefix, exit };
}

function visit(node: ts.Node, each: (node: ts.Node) => void): void {
  each(node);
  ts.forEachChild(node, (child) => visit(child, each));
}

/** Every MB_* code of the program, and the build scripts' own. */
export function findCodes(): Map<string, FoundCode> {
  const found = new Map<string, FoundCode>();
  const add = (code: string, file: string, exit?: number): void => {
    const known = found.get(code) ?? { files: new Set(), exits: new Set() };
    known.files.add(file);
    if (exit !== undefined) known.exits.add(exit);
    found.set(code, known);
  };
  const sources = ['src', 'recipes', 'examples'].flatMap((folder) => filesIn(folder, ['.ts'])).map(parse);
  const makers: Maker[] = [];
  for (const source of sources) {
    visit(source, (node) => {
      const text = literal(node);
      if (text !== undefined && CODE.test(text) && !FILE_FAMILIES.includes(text)) add(text, source.fileName);
      if (!ts.isNewExpression(node) || node.expression.getText() !== 'MbridgeError') return;
      const [kind, code] = node.arguments ?? [];
      const word = literal(kind);
      const exit = word === undefined ? undefined : EXIT[word as ExitKind];
      const direct = literal(code);
      if (direct !== undefined) add(direct, source.fileName, exit);
      const maker = code === undefined ? undefined : makerOf(source.fileName, code, exit);
      if (maker !== undefined) makers.push(maker);
    });
  }
  for (const source of sources) {
    visit(source, (node) => {
      if (!ts.isCallExpression(node)) return;
      const called = node.expression.getText().replace(/^this\./, '');
      for (const { name, file, exported, parameter, prefix, exit } of makers) {
        if (called !== name || (!exported && file !== source.fileName)) continue;
        const argument = node.arguments[parameter];
        for (const each of argument !== undefined && ts.isConditionalExpression(argument)
          ? [argument.whenTrue, argument.whenFalse]
          : [argument]) {
          const text = literal(each);
          if (text !== undefined) add(prefix + text, source.fileName, exit);
        }
      }
    });
  }
  for (const family of FILE_FAMILIES) {
    for (const action of ['OPEN', 'READ', 'WRITE']) {
      add(`${family}_${action}`, 'src/checkpoint/files/safetensors-error.ts', EXIT.io);
    }
  }
  const quoted = [
    ...filesIn('native', ['.cc', '.h', '.cu', '.cuh']).filter((file) => !file.startsWith('native/tests/')),
    ...filesIn('scripts', ['.mjs']),
  ];
  for (const file of quoted) {
    const text = readFileSync(join(ROOT, file), 'utf8');
    for (const match of text.matchAll(/(?:["']|error )(MB_[A-Z0-9]+(?:_[A-Z0-9]+)*)(?=["':])/g)) add(match[1]!, file);
  }
  return found;
}
