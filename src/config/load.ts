import { readFileSync } from 'node:fs';
import { isMap, isScalar, LineCounter, parseDocument, type Pair } from 'yaml';
import { systemFault } from '../base/system-error.js';
import type { Problem } from './problem.js';
import type { Setting } from './setting.js';

/** The settings of a YAML text; every one carries `name:line:col`. Syntax errors and repeated keys go to `problems`. */
export function parseConfigText(text: string, name: string, problems: Problem[]): Setting[] {
  const lines = new LineCounter();
  const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  if (doc.errors.length > 0) {
    problems.push(
      ...doc.errors.map((e) => {
        const message = e.code === 'MULTIPLE_DOCS' ? 'a second document; a configuration is one' : e.message;
        return { code: 'MB_CONFIG_SYNTAX', place: at(e.pos[0]), path: '', message };
      }),
    );
    return [];
  }
  if (doc.contents === null) return [];
  if (!isMap(doc.contents)) {
    problems.push({ code: 'MB_CONFIG_SYNTAX', place: `${name}:1:1`, path: '', message: 'expected sections of keys' });
    return [];
  }
  const setting = (path: string[], value: unknown, pair: Pair): Setting => {
    const offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? 0) : 0;
    return { path, value, origin: 'file', place: at(offset) };
  };
  const js = doc.toJS() as Record<string, unknown>;
  return doc.contents.items.flatMap((sectionPair) => {
    const section = keyOf(sectionPair);
    const content = sectionPair.value;
    if (!isMap(content)) return [setting([section], js[section] ?? null, sectionPair)];
    const values = js[section] as Record<string, unknown>;
    return [
      setting([section], {}, sectionPair),
      ...content.items.map((pair) => setting([section, keyOf(pair)], values[keyOf(pair)], pair)),
    ];
  });
}

function keyOf(pair: Pair): string {
  return String(isScalar(pair.key) ? pair.key.value : pair.key);
}

/** {@link parseConfigText} of a file, named in the messages as the user named it. */
export function loadConfigFile(path: string, problems: Problem[]): Setting[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemFault(error)?.kind === 'environment') throw error; // a limit of the system, not a wrong path
    const message = `cannot read the configuration: ${(error as Error).message}`;
    problems.push({ code: 'MB_CONFIG_FILE', place: path, path: '', message });
    return [];
  }
  return parseConfigText(text, path, problems);
}
