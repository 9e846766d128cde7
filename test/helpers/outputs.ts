import { z } from 'zod';
import { OUTPUTS } from '../../src/outputs/index.js';

/** A line of `--json`, or of a file of a run. */
export interface Output {
  readonly schema: number;
  readonly type: string;
  readonly [key: string]: unknown;
}

/**
 * Parses lines of JSON, each held strictly to the schema of its type: a key that it does not know fails.
 * @param own types of a program's own events, which have no schema
 */
export function readOutputs(text: string, own: readonly string[] = []): Output[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => checkOutput(JSON.parse(line), own));
}

/** The only line, as what a test knows it to be. */
export function readOutput<T = Output>(text: string): T {
  const outputs = readOutputs(text);
  if (outputs.length !== 1) throw new Error(`one line of JSON was expected: ${text}`);
  return outputs[0] as T;
}

/** @throws Error that says what does not fit */
export function checkOutput(value: unknown, own: readonly string[] = []): Output {
  const { schema, type } = value as Output;
  if (own.includes(type) && schema === 1) return value as Output;
  if (!Object.hasOwn(OUTPUTS, type)) throw new Error(`no schema of type ${type}: ${JSON.stringify(value)}`);
  const found = (OUTPUTS as Readonly<Record<string, z.ZodType>>)[type]?.safeParse(value);
  if (found?.success !== true) {
    throw new Error(`${JSON.stringify(value)} is not ${type}: ${found ? z.prettifyError(found.error) : ''}`);
  }
  return value as Output;
}
