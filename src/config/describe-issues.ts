import type { z } from 'zod';
import { configJsonSchema, expectation, sectionKeys, type JsonSchema } from './json-schema.js';
import type { Merged } from './merge.js';
import { didYouMean, nearest } from './nearest.js';
import { NOT_BUILT_KEYS } from './not-built.js';
import type { Problem } from './problem.js';
import { ALIASES, isPlainObject } from './setting.js';

/** Why a value that Megatron-Bridge takes is refused, where the type alone does not say it. */
const REFUSALS: Readonly<Record<string, string>> = {
  'dist.use_gloo_process_groups':
    'must be false: Gloo groups are not supported (groups run over NCCL on GPUs and shared memory on the CPU)',
  'dist.use_decentralized_pg':
    'must be true: there is no global parallel state to fall back to; groups are always explicit',
};

const MISSING: Readonly<Record<string, string>> = {
  model: 'missing; name a recipe (mbridge recipes), a model.hf_path, or explicit sizes',
  train: 'missing; set train.train_iters',
  'dataset.type': 'missing; one of mock, jsonl, text',
};

/** zod's findings in our words, each with its place. */
export function describeIssues(issues: readonly z.core.$ZodIssue[], merged: Merged): Problem[] {
  const root = configJsonSchema();
  return issues.flatMap((issue) => {
    const [section, key] = issue.path.map(String);
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((unknown) => unknownKey(root, merged, section, unknown));
    }
    return [badValue(root, merged, section ?? '', key)];
  });
}

function sectionSchema(root: JsonSchema, merged: Merged, section: string): Record<string, JsonSchema> {
  const content = merged.values[section];
  const schema = root.properties?.[section];
  return schema === undefined ? {} : sectionKeys(schema, isPlainObject(content) ? content['type'] : undefined);
}

function unknownKey(root: JsonSchema, merged: Merged, section: string | undefined, key: string): Problem {
  const path = section === undefined ? key : `${section}.${key}`;
  const place = merged.sources.get(path)?.place;
  const planned = NOT_BUILT_KEYS[path];
  if (planned !== undefined) {
    return { code: 'MB_CONFIG_NOT_BUILT', place, path, message: `not built yet; ${planned}` };
  }
  return {
    code: 'MB_CONFIG_UNKNOWN_KEY',
    place,
    path,
    message: `unknown key${suggestion(root, merged, section, key)}`,
  };
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
  const content = merged.values[section];
  const value = key === undefined ? content : isPlainObject(content) ? content[key] : undefined;
  const place = merged.sources.get(path)?.place ?? merged.sources.get(section)?.place;
  const schema = key === undefined ? root.properties?.[section] : sectionSchema(root, merged, section)[key];
  const code = 'MB_CONFIG_VALUE';
  if (value === undefined) {
    const what = schema?.description === undefined ? '' : ` (${schema.description})`;
    return { code, place, path, message: MISSING[path] ?? `missing${what}` };
  }
  const refusal = REFUSALS[path];
  if (refusal !== undefined) return { code, place, path, message: refusal };
  const expected = key === 'type' && section !== 'model' ? typesOf(root, section) : expectation(schema ?? {});
  const values = (schema?.enum ?? typeNames(root, section)).map(String);
  const near = typeof value === 'string' ? didYouMean(value, values) : '';
  return { code, place, path, message: `expected ${expected}, got ${JSON.stringify(value)}${near}` };
}

function typeNames(root: JsonSchema, section: string): string[] {
  return (root.properties?.[section]?.oneOf ?? []).map((v) => String(v.properties?.['type']?.const));
}

function typesOf(root: JsonSchema, section: string): string {
  return `one of ${typeNames(root, section).join(', ')}`;
}
