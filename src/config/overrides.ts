import { sectionJsonSchema, sectionKeys, type JsonSchema } from './json-schema.js';
import { parseYamlValue } from './load.js';
import { throwProblems, type Problem } from './problem.js';
import type { Setting } from './setting.js';

/** Tells an override (`a.b=value`) from a recipe's or file's name. */
export function isOverride(text: string): boolean {
  return /^[A-Za-z_][\w.-]*=/.test(text);
}

/**
 * Texts of a command line, each `section.key=value`, for {@link resolveConfig}, which reads the values.
 * @throws MbridgeError MB_CONFIG_SYNTAX (exit 3) naming every text that is none
 */
export function parseOverrides(texts: readonly string[]): { text: string; place: string }[] {
  const problems: Problem[] = [];
  const overrides = texts.map((text) => ({ text, place: text }));
  for (const { text, place } of overrides) parseOverride(text, place, problems);
  throwProblems(problems);
  return overrides;
}

/** `section.key=value` (or `mixed_precision=value`) as a setting. */
export function parseOverride(text: string, place: string, problems: Problem[]): Setting | undefined {
  const split = text.indexOf('=');
  const path = text.slice(0, split).split('.');
  if (split < 1 || path.length > 2 || path.includes('')) {
    const message = `${place === text ? '' : `${text}: `}expected section.key=value`;
    problems.push({ code: 'MB_CONFIG_SYNTAX', place, path: '', message });
    return undefined;
  }
  return { path, value: parseValue(path, text.slice(split + 1), place, problems), origin: 'override', place };
}

/**
 * What a text of the command line is for the key `path`. A key that takes a text gets it as it stands, whatever it
 * would be in YAML (`*.txt`, `a #1`, `1e3`); one that may be unset is so by nothing or `null`. Numbers, `true`, `false`
 * and `null` are read for other keys, lists and sections where those are taken; what is none of that stays a text.
 */
export function parseValue(path: readonly string[], text: string, place: string, problems: Problem[]): unknown {
  const schema = schemaOf(path);
  const types = (schema?.anyOf ?? (schema === undefined ? [] : [schema])).map(({ type }) => type);
  const trimmed = text.trim();
  const takesText = types.includes('string');
  const unset = ['', 'null', ...(takesText ? [] : ['~'])]; // of a path, ~ is the home folder
  if (types.includes('null') && unset.includes(trimmed)) return null;
  if (takesText) return text;
  if (types.includes('object') || types.includes('array') || schema?.oneOf !== undefined) {
    return parseYamlValue(text, place, path.join('.'), problems);
  }
  // Words and numbers only: nothing that is a sign to YAML.
  return /^[\w.+-]*$/.test(trimmed) ? parseYamlValue(trimmed, place, path.join('.'), problems) : text;
}

function schemaOf([section = '', key]: readonly string[]): JsonSchema | undefined {
  const schema = sectionJsonSchema(section);
  if (key === undefined || schema === undefined) return schema;
  const keys = sectionKeys(schema);
  return Object.hasOwn(keys, key) ? keys[key] : undefined;
}
