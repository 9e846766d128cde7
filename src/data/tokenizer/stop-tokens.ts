import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { isPlainObject } from '../../base/plain-object.js';
import { readTextFile } from '../../base/regular-file.js';
import type { Tokenizer } from '../tokenizer.js';

const LIMIT = 2 ** 20;

/**
 * The tokens that end a text: the tokenizer's own token between documents, and those that generation_config.json and
 * config.json of the folders name as `eos_token_id`.
 */
export function stopTokens(tokenizer: Tokenizer, folders: readonly string[]): number[] {
  const files = folders.flatMap((folder) =>
    ['generation_config.json', 'config.json'].map((name) => join(folder, name)),
  );
  const found = [endOfDocument(tokenizer), ...files.flatMap(eosTokens)];
  return [...new Set(found)].filter((token): token is number => token !== undefined).sort((a, b) => a - b);
}

function endOfDocument(tokenizer: Tokenizer): number | undefined {
  try {
    return tokenizer.endOfDocument;
  } catch (error) {
    if (error instanceof MbridgeError && error.code === 'MB_TOKENIZER_EOD') return undefined;
    throw error;
  }
}

function eosTokens(path: string): number[] {
  if (!existsSync(path)) return [];
  let value: unknown;
  try {
    value = JSON.parse(readTextFile(path, LIMIT));
  } catch {
    return []; // what else reads the file says what is wrong with it
  }
  const ids = isPlainObject(value) ? [value['eos_token_id']].flat() : [];
  return ids.filter((id): id is number => Number.isSafeInteger(id));
}
