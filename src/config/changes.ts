import { sectionJsonSchema, sectionKeys } from './json-schema.js';
import type { RunConfig } from './schema.js';

export interface ConfigChange {
  /** `section.key` */
  readonly key: string;
  /** undefined where only the other has the key. */
  readonly a: unknown;
  readonly b: unknown;
}

/** A value as a message has it. */
export function changedValue(value: unknown): string {
  return value === undefined ? 'unset' : JSON.stringify(value);
}

/**
 * Keys in which two configurations differ, in the order of the schema. One of an earlier version lacks what is new since:
 * it ran with the default.
 */
export function configChanges(first: RunConfig, second: RunConfig): ConfigChange[] {
  const [one, other] = [flat(first), flat(second)];
  const keys = [...new Set([...one.keys(), ...other.keys()])];
  return keys
    .map((key) => ({
      key,
      a: one.has(key) ? one.get(key) : defaultOf(first, key),
      b: other.has(key) ? other.get(key) : defaultOf(second, key),
    }))
    .filter(({ a, b }) => JSON.stringify(a) !== JSON.stringify(b));
}

function defaultOf(config: RunConfig, key: string): unknown {
  const [section = '', name = ''] = key.split('.');
  const content = config[section as keyof RunConfig] as { type?: unknown } | undefined;
  return sectionKeys(sectionJsonSchema(section) ?? {}, content?.type)[name]?.default;
}

function flat(config: RunConfig): Map<string, unknown> {
  return new Map(
    Object.entries(config).flatMap(([section, content]): [string, unknown][] =>
      typeof content === 'object'
        ? Object.entries(content as object).map(([key, value]: [string, unknown]) => [`${section}.${key}`, value])
        : [[section, content]],
    ),
  );
}
