import { parseArgs } from 'node:util';
import { MbridgeError } from '../../src/index.js';

/** Reads `--name value` options whose values are numbers. */
export function numberOptions<T extends Record<string, number | undefined>>(defaults: T): T {
  const options = Object.fromEntries(Object.keys(defaults).map((name) => [name, { type: 'string' as const }]));
  const hint = `options: ${Object.keys(defaults)
    .map((name) => `--${name} N`)
    .join(', ')}`;
  const result: Record<string, number | undefined> = { ...defaults };
  for (const [name, text] of Object.entries(valuesOf(options, hint))) {
    const value = Number(text);
    if (text === '' || !Number.isFinite(value)) {
      throw new MbridgeError('usage', 'MB_USAGE', `--${name} expects a number, got '${text}'`, { hint });
    }
    result[name] = value;
  }
  return result as T;
}

/** What --nproc says, else a default; none where torchrun has started this process as one of several. */
export function processesToStart(nproc: number | undefined, byDefault: number): number | undefined {
  return nproc ?? (process.env['WORLD_SIZE'] === undefined ? byDefault : undefined);
}

function valuesOf(options: Record<string, { type: 'string' }>, hint: string): Record<string, unknown> {
  try {
    return parseArgs({ options, allowPositionals: false }).values;
  } catch (cause) {
    const message = (cause instanceof Error ? cause.message : String(cause)).split('\n')[0] ?? '';
    throw new MbridgeError('usage', 'MB_USAGE', message, { hint, cause });
  }
}
