import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { MbridgeError } from '../../src/base/errors.js';

/** Of a dataset: nothing is made of where documents begin. */
export const TOGETHER = { document_attention: false, mask_document_starts: false } as const;

/** A file that goes when the test ends. */
export function tempFile(name: string, content: string | Uint8Array): string {
  const dir = mkdtempSync(join(tmpdir(), 'mbridge-data-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}

/** The MbridgeError that `run` throws; anything else fails the test. */
export async function mbridgeError(run: () => unknown): Promise<MbridgeError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof MbridgeError) return error;
    throw error;
  }
  throw new Error('expected an MbridgeError, nothing was thrown');
}
