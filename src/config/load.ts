import {
  isAlias,
  isCollection,
  isMap,
  isScalar,
  Lexer,
  LineCounter,
  parseDocument,
  Parser,
  visit,
  type Document,
  type Node,
  type Pair,
} from 'yaml';
import { readTextFile, UnreadableFile } from '../base/regular-file.js';
import { systemError, systemFault } from '../base/system-error.js';
import { expandPath } from './expand-path.js';
import type { Problem } from './problem.js';
import type { Setting } from './setting.js';

/** More than any configuration has: the parser's time grows with the square of the keys. */
const MOST_BYTES = 128 << 10;
/** Open sections and lists, of the parser's own count. A configuration has two; at thousands the parser takes the process with it. */
const DEEPEST = 100;
const QUOTE_IT = 'put it in quotes if it is a text';

/** The settings of a YAML text; every one carries `name:line:col`. What is wrong with the text goes to `problems`. */
function parseConfigText(text: string, name: string, problems: Problem[]): Setting[] {
  const places = placesIn(name);
  return readYaml(text, { ...places, problems }, (doc, bad) => settingsOfDocument(doc, places.at, bad)) ?? [];
}

/** Where in `name` what is at an offset of its text stands. */
function placesIn(name: string): { lines: LineCounter; at: (offset: number) => string } {
  const lines = new LineCounter();
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  return { lines, at };
}

/** A YAML text that is one value, as lists and sections are written on a command line; null where it is none. */
export function parseYamlValue(text: string, place: string, path: string, problems: Problem[]): unknown {
  return readYaml(text, { at: () => place, path, problems }, (doc) => doc.toJS() as unknown) ?? null;
}

interface Reading {
  readonly lines?: LineCounter;
  readonly at: (offset: number) => string;
  readonly path?: string;
  readonly problems: Problem[];
}

type Report = (place: string, message: string) => void;

/** What `use` makes of the document of `text`. Whatever the parser finds or throws goes to `problems`. */
function readYaml<T>(
  text: string,
  { lines, at, path = '', problems }: Reading,
  use: (doc: Document.Parsed, bad: Report) => T,
): T | undefined {
  const bad: Report = (place, message) => problems.push({ code: 'MB_CONFIG_SYNTAX', place, path, message });
  try {
    const deep = tooDeepAt(text, lines);
    if (deep !== undefined) {
      bad(at(deep), 'sections or lists lie too deep in each other');
      return undefined;
    }
    const doc = parseDocument(text, { prettyErrors: false });
    const found = syntaxProblems(doc);
    for (const { offset, message } of found) bad(at(offset), message);
    return found.length > 0 ? undefined : use(doc, bad);
  } catch (error) {
    // Such as aliases of aliases, which the parser gives up to expand.
    bad(at(0), `cannot be read as YAML: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

/** {@link parseConfigText} of a file, named in the messages as the user named it. */
export function loadConfigFile(path: string, problems: Problem[]): Setting[] {
  const text = readYamlText(path, problems);
  return text === undefined ? [] : parseConfigText(text, path, problems);
}

/** What a YAML file holds; undefined where that goes to `problems`. */
export function loadYamlFile(path: string, problems: Problem[]): unknown {
  const text = readYamlText(path, problems);
  if (text === undefined) return undefined;
  return readYaml(text, { ...placesIn(path), problems }, (doc) => doc.toJS() as unknown);
}

function readYamlText(path: string, problems: Problem[]): string | undefined {
  const bad = (message: string): void => {
    problems.push({ code: 'MB_CONFIG_FILE', place: path, path: '', message });
  };
  const file = expandPath(path);
  if ('problem' in file) {
    bad(file.problem);
    return undefined;
  }
  try {
    return readTextFile(file.path, MOST_BYTES);
  } catch (error) {
    if (!(error instanceof UnreadableFile)) throw error;
    // A limit of the system is no wrong path.
    if (systemFault(error)?.kind === 'environment') throw systemError(error) ?? error;
    bad(`cannot read the configuration: ${error.message}`);
    return undefined;
  }
}

/** Where a text is nested too deep. Counts its lines on the way. */
function tooDeepAt(text: string, lines?: LineCounter): number | undefined {
  lines?.addNewLine(0);
  const parser = new Parser(lines?.addNewLine);
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) void token;
    if (parser.stack.length > DEEPEST) return parser.offset;
  }
  return undefined;
}

interface Found {
  readonly offset: number;
  readonly message: string;
}

/** What the parser found, and what it lets pass: tags it does not know, aliases of nothing or of what holds them. */
function syntaxProblems(doc: Document.Parsed): Found[] {
  const found: Found[] = doc.errors.map((e) => ({
    offset: e.pos[0],
    message: e.code === 'MULTIPLE_DOCS' ? 'a second document; a configuration is one' : e.message,
  }));
  if (found.length > 0) return found;
  found.push(...doc.warnings.map((w) => ({ offset: w.pos[0], message: `${w.message}; ${QUOTE_IT}` })));
  visit(doc, {
    Alias(_, alias, parents) {
      const target = alias.resolve(doc);
      const offset = alias.range?.[0] ?? 0;
      if (target === undefined) {
        found.push({
          offset,
          message: `*${alias.source} is an alias, and no &${alias.source} is before it; ${QUOTE_IT}`,
        });
      } else if (parents.includes(target)) {
        found.push({ offset, message: `*${alias.source} is an alias of a section that it is in` });
      }
    },
  });
  return found;
}

function settingsOfDocument(doc: Document.Parsed, at: (offset: number) => string, bad: Report): Setting[] {
  if (doc.contents === null || (isScalar(doc.contents) && doc.contents.value === null)) return [];
  if (!isMap(doc.contents)) {
    bad(at(doc.contents.range[0]), 'expected sections of keys');
    return [];
  }
  const valueOf = (node: unknown): unknown => (node as Node | null)?.toJS(doc) ?? null;
  const keyOf = (pair: Pair, inside: number): string | undefined => {
    const { key } = pair;
    if (isScalar(key) && key.value !== null && key.value !== '') return String(key.value);
    const what = isCollection(key) ? 'a list or section' : isAlias(key) ? 'an alias' : 'nothing';
    bad(at((key as Node | null)?.range?.[0] ?? inside), `a key is ${what}; expected its name`);
    return undefined;
  };
  const setting = (path: string[], value: unknown, pair: Pair): Setting => {
    return { path, value, origin: 'file', place: at((pair.key as Node).range?.[0] ?? 0) };
  };
  return doc.contents.items.flatMap((sectionPair) => {
    const section = keyOf(sectionPair, 0);
    if (section === undefined) return [];
    const content = isAlias(sectionPair.value) ? sectionPair.value.resolve(doc) : sectionPair.value;
    if (!isMap(content)) return [setting([section], valueOf(content), sectionPair)];
    const keys = content.items.flatMap((pair) => {
      const key = keyOf(pair, content.range?.[0] ?? 0);
      return key === undefined ? [] : [setting([section, key], valueOf(pair.value), pair)];
    });
    return [setting([section], {}, sectionPair), ...keys];
  });
}
