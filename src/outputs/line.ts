import type { z } from 'zod';
import type { OUTPUTS } from './index.js';

/** Version of all that is printed with `--json`: another number where a key goes, or means something else. */
export const OUTPUT_SCHEMA = 1;

type DeepReadonly<T> = T extends readonly unknown[] | object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;
type Facts<T> = T extends unknown ? DeepReadonly<Omit<T, 'schema' | 'type'>> : never;

/** A type of output, as its key `type` names it. */
export type OutputType = keyof typeof OUTPUTS;

/** What an output of a type says beside `schema` and `type`. */
export type OutputFacts<T extends OutputType> = Facts<z.input<(typeof OUTPUTS)[T]>>;

/** An output as a line, for stdout or a file. Numbers that are not finite become null. */
export function outputLine<T extends OutputType>(type: T, facts: OutputFacts<T>): string {
  return `${eventJson({ type, ...facts })}\n`;
}

/** An event that has its type, one of a program's own too, as JSON on one line. */
export function eventJson(event: { readonly type: string }): string {
  return JSON.stringify({ schema: OUTPUT_SCHEMA, ...event });
}
