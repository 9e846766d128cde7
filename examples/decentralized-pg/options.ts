import { parseArgs } from 'node:util';

/** Reads `--name value` options whose values are numbers, or strings where the default is one. */
export function numberOptions<T extends Record<string, number | undefined>>(defaults: T): T {
  const options = Object.fromEntries(Object.keys(defaults).map((name) => [name, { type: 'string' as const }]));
  const { values } = parseArgs({ options, allowPositionals: false });
  const result: Record<string, number | undefined> = { ...defaults };
  for (const [name, text] of Object.entries(values)) {
    const value = Number(text);
    if (!Number.isFinite(value)) throw new Error(`--${name} expects a number, got ${String(text)}`);
    result[name] = value;
  }
  return result as T;
}
