import type { z } from 'zod';
import { configJsonSchema, expectation, sectionKeys, type JsonSchema } from './json-schema.js';
import { isDerived } from './derive.js';
import { placeIn, type Merged } from './merge.js';
import { didYouMean, nearest } from '../base/nearest.js';
import { NOT_BUILT_KEYS } from './not-built.js';
import type { Problem } from './problem.js';
import { isPlainObject } from '../base/plain-object.js';
import { ALIASES } from './setting.js';

/** Why a value that Megatron-Bridge takes is refused, where the type alone does not say it. */
const REFUSALS: Readonly<Record<string, string>> = {
  'dist.use_gloo_process_groups':
    'must be false: Gloo groups are not supported (groups run over NCCL on GPUs and shared memory on the CPU)',
  'dist.use_decentralized_pg':
    'must be true: there is no global parallel state to fall back to; groups are always explicit',
};

/** What to do about missing keys of a section. */
const REMEDIES: Readonly<Record<string, string>> = {
  model: 'name a recipe (mbridge recipes), a model.hf_path, or the sizes',
  train: 'set train.train_iters',
};

/**
 * zod's findings in our words, each with its place. What only follows from another value waits until there is nothing
 * else to put right.
 */
export function describeIssues(issues: readonly z.core.$ZodIssue[], merged: Merged): Problem[] {
  const root = configJsonSchema();
  const written = issues.filter(({ path }) => !follows(merged, path.map(String)));
  const missing = new Map<string, string[]>();
  const problems = (written.length > 0 ? written : issues).flatMap((issue) => {
    const [section = '', key, name] = issue.path.map(String);
    if (section === 'validation' && key === 'sets' && name !== undefined) return ofSet(issue, name, merged);
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((unknown) =>
        unknownKey(root, merged, issue.path.length === 0 ? undefined : section, unknown),
      );
    }
    if (valueAt(merged, section, key) !== undefined) return [badValue(root, merged, section, key)];
    missing.set(section, [...(missing.get(section) ?? []), ...(key === undefined ? [] : [key])]);
    return [];
  });
  return [...problems, ...[...missing].map(([section, keys]) => missingKeys(root, merged, section, keys))];
}

/** What is wrong in one of `validation.sets`, in the words for section `dataset`, whose keys it has. */
function ofSet(issue: z.core.$ZodIssue, name: string, merged: Merged): Problem[] {
  const path = `validation.sets.${name}`;
  const set = (valueAt(merged, 'validation', 'sets') as Record<string, unknown>)[name];
  if (issue.code === 'invalid_key') {
    const message = 'a name has letters, digits, ".", "_" and "-" only';
    return [{ code: 'MB_CONFIG_VALUE', place: placeIn(merged, 'validation.sets'), path, message }];
  }
  const alone = { values: { dataset: set }, sources: new Map() };
  return describeIssues([{ ...issue, path: ['dataset', ...issue.path.slice(3)] }], alone).map((problem) => ({
    ...problem,
    place: placeIn(merged, 'validation.sets'),
    path: problem.path.replace(/^dataset/, path),
    message: problem.message.replaceAll('dataset.', `${path}.`),
  }));
}

function follows({ values, sources }: Merged, path: string[]): boolean {
  const key = path.join('.');
  if (sources.get(key)?.origin === 'derived') return true;
  return (
    sources.get(key) === undefined && (isDerived(key) || (key === 'scheduler' && values['scheduler'] === undefined))
  );
}

function valueAt({ values }: Merged, section: string, key: string | undefined): unknown {
  const content = values[section];
  return key === undefined ? content : isPlainObject(content) ? content[key] : undefined;
}

function missingKeys(root: JsonSchema, merged: Merged, section: string, keys: string[]): Problem {
  const [key] = keys;
  const place = placeIn(merged, section);
  const schema = key === undefined ? undefined : sectionSchema(root, merged, section)[key];
  const remedy = REMEDIES[section] ?? (key === 'type' ? typesOf(root, section) : schema?.description);
  const message = `missing${keys.length > 1 ? ` ${keys.join(', ')}` : ''}${remedy === undefined ? '' : `; ${remedy}`}`;
  return { code: 'MB_CONFIG_MISSING', place, path: keys.length === 1 ? `${section}.${key ?? ''}` : section, message };
}

function sectionSchema(root: JsonSchema, merged: Merged, section: string): Record<string, JsonSchema> {
  const content = merged.values[section];
  const schema = root.properties?.[section];
  return schema === undefined ? {} : sectionKeys(schema, isPlainObject(content) ? content['type'] : undefined);
}

function unknownKey(root: JsonSchema, merged: Merged, section: string | undefined, key: string): Problem {
  const path = section === undefined ? key : `${section}.${key}`;
  const place = placeIn(merged, path);
  const planned = Object.hasOwn(NOT_BUILT_KEYS, path) ? NOT_BUILT_KEYS[path] : undefined;
  if (planned !== undefined) {
    return { code: 'MB_CONFIG_NOT_BUILT', place, path, message: `not built yet; ${planned}` };
  }
  const message = keyOfOtherType(root, merged, section, key) ?? `unknown key${suggestion(root, merged, section, key)}`;
  return { code: 'MB_CONFIG_UNKNOWN_KEY', place, path, message };
}

/** What to say of a key that the section has, with another `type` than it is of. */
function keyOfOtherType(
  root: JsonSchema,
  { values }: Merged,
  section: string | undefined,
  key: string,
): string | undefined {
  const variants = section === undefined ? [] : (root.properties?.[section]?.oneOf ?? []);
  const owners = variants.filter(({ properties }) => properties !== undefined && Object.hasOwn(properties, key));
  if (section === undefined || owners.length === 0) return undefined;
  const types = owners.map(({ properties }) => String(properties?.['type']?.const)).join(' or ');
  const content = values[section];
  const type = isPlainObject(content) ? content['type'] : undefined;
  return `is for ${section}.type ${types}${typeof type === 'string' ? `, and it is ${type}` : ''}; set ${section}.type too`;
}

/** The nearest key of the same section, else of any section. */
function suggestion(root: JsonSchema, merged: Merged, section: string | undefined, key: string): string {
  const sections = Object.keys(root.properties ?? {});
  const keysOf = (name: string): string[] => [
    ...Object.keys(sectionSchema(root, merged, name)),
    ...Object.keys(ALIASES)
      .filter((alias) => alias.startsWith(`${name}.`))
      .map((alias) => alias.slice(name.length + 1)),
  ];
  const near = didYouMean(key, section === undefined ? sections : keysOf(section));
  if (near !== '') return near;
  const homes = new Map(sections.flatMap((name) => keysOf(name).map((k) => [k, name] as const)));
  const elsewhere = nearest(key, homes.keys());
  return elsewhere === undefined ? '' : ` (did you mean ${homes.get(elsewhere) ?? ''}.${elsewhere}?)`;
}

function badValue(root: JsonSchema, merged: Merged, section: string, key: string | undefined): Problem {
  const path = key === undefined ? section : `${section}.${key}`;
  const value = valueAt(merged, section, key);
  const place = placeIn(merged, path);
  const schema = key === undefined ? root.properties?.[section] : sectionSchema(root, merged, section)[key];
  const code = 'MB_CONFIG_VALUE';
  const refusal = REFUSALS[path];
  if (refusal !== undefined) return { code, place, path, message: refusal };
  const expected = key === 'type' && section !== 'model' ? typesOf(root, section) : expectation(schema ?? {});
  const values = (schema?.enum ?? typeNames(root, section)).map(String);
  const near = typeof value === 'string' ? didYouMean(value, values) : '';
  return {
    code,
    place,
    path,
    message: `expected ${expected}, got ${shown(value)}${near}`,
  };
}

function typeNames(root: JsonSchema, section: string): string[] {
  return (root.properties?.[section]?.oneOf ?? []).map((v) => String(v.properties?.['type']?.const));
}

function typesOf(root: JsonSchema, section: string): string {
  return `one of ${typeNames(root, section).join(', ')}`;
}

/** A value for a message, which no value can make fail or endless. */
function shown(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'bigint') return `${value}n`;
  try {
    const json = JSON.stringify(value) as string | undefined;
    const text = json ?? typeof value;
    return text.length > 200 ? `${text.slice(0, 200)}...` : text;
  } catch {
    return Array.isArray(value) ? 'a list' : 'an object'; // of itself, or deeper than can be written
  }
}
