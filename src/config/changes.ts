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

/** Keys in which two configurations differ, in the order of the schema. */
export function configChanges(first: RunConfig, second: RunConfig): ConfigChange[] {
  const [a, b] = [flat(first), flat(second)];
  const keys = [...new Set([...a.keys(), ...b.keys()])];
  const changed = keys.filter((key) => JSON.stringify(a.get(key)) !== JSON.stringify(b.get(key)));
  return changed.map((key) => ({ key, a: a.get(key), b: b.get(key) }));
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
