import { parseDocument } from 'yaml';
import type { Problem } from './problem.js';
import type { OriginKind, Setting } from './setting.js';

/** Tells an override (`a.b=value`) from a recipe's or file's name. */
export function isOverride(text: string): boolean {
  return /^[A-Za-z_][\w.-]*=/.test(text);
}

/** A text as YAML reads a value: `1e-4`, `true`, `null`, `[1, 2]`, or itself where it is no YAML. */
export function parseValue(text: string): unknown {
  const doc = parseDocument(text);
  return doc.errors.length > 0 ? text : (doc.toJS() as unknown);
}

/** `section.key=value` (or `mixed_precision=value`) as a setting. */
export function parseOverride(
  text: string,
  place: string,
  problems: Problem[],
  origin: OriginKind = 'override',
): Setting | undefined {
  const split = text.indexOf('=');
  const path = text.slice(0, split).split('.');
  if (split < 1 || path.length > 2 || path.includes('')) {
    problems.push({ code: 'MB_CONFIG_SYNTAX', place, path: '', message: `${text}: expected section.key=value` });
    return undefined;
  }
  return { path, value: parseValue(text.slice(split + 1)), origin, place };
}
