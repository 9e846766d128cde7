import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MbridgeError } from '../../base/errors.js';
import { staysInside } from '../../base/own-file.js';
import { isPlainObject } from '../../base/plain-object.js';
import { readTextFile, UnreadableFile } from '../../base/regular-file.js';

/** The largest known tokenizer.json has 33 MB. */
const LIMIT = 256 << 20;

type Json = Readonly<Record<string, unknown>>;

/** A token that is cut out of a text before anything else, as tokenizer.json has it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** What a Hugging Face folder says of its tokenizer. Nothing of it has been built yet. */
export interface TokenizerFolder {
  readonly path: string;
  /** tokenizer.json, with the added tokens of tokenizer_config.json that it lacks. */
  readonly tokenizer: Json & { readonly model: Json; readonly added_tokens: readonly AddedToken[] };
  /** tokenizer_config.json; empty where there is none. */
  readonly config: Json;
  /** Chat templates by name; `default` is the usual one. */
  readonly chatTemplates: ReadonlyMap<string, string>;
  /** Hexadecimal SHA-256 of all that decides the ids of a text: equal for the same tokenizer, however its file is written. */
  readonly identity: string;
}

/** @throws MbridgeError MB_TOKENIZER_FILE (exit 7) where a file is missing, cannot be read or is no tokenizer */
export function readTokenizerFolder(path: string): TokenizerFolder {
  const config = readJson(path, 'tokenizer_config.json') ?? {};
  const raw = readJson(path, 'tokenizer.json');
  if (raw === undefined) throw noTokenizer(path);
  const { model, added_tokens: added = [] } = raw;
  if (!isPlainObject(model) || !isPlainObject(model['vocab']) === !Array.isArray(model['vocab'])) {
    throw broken(path, 'tokenizer.json', 'has no "model" with a "vocab"');
  }
  if (!Array.isArray(added) || !added.every(isAddedToken)) {
    throw broken(path, 'tokenizer.json', '"added_tokens" is no list of {"id", "content", "special"}');
  }
  const tokenizer = { ...raw, model, added_tokens: [...added, ...missingTokens(added, config)] };
  return { path, tokenizer, config, chatTemplates: readTemplates(path, config), identity: identityOf(tokenizer) };
}

/** One more than the highest id. */
export function vocabularySize({ tokenizer }: TokenizerFolder): number {
  const { vocab } = tokenizer.model;
  const ids = Array.isArray(vocab) ? [vocab.length - 1] : (Object.values(vocab as object) as number[]);
  return [...ids, ...tokenizer.added_tokens.map(({ id }) => id)].reduce((a, b) => Math.max(a, b), -1) + 1;
}

/** The tokens that tokenizer_config.json names, by their names: bos_token, eos_token and so on. */
export function namedTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(config).flatMap(([key, value]) => {
      if (!key.endsWith('_token')) return [];
      const content = isPlainObject(value) ? value['content'] : value;
      return typeof content === 'string' ? [[key, content]] : [];
    }),
  );
}

function isAddedToken(value: unknown): value is AddedToken {
  if (!isPlainObject(value) || typeof value['content'] !== 'string') return false;
  return Number.isSafeInteger(value['id']) && (value['id'] as number) >= 0;
}

/** transformers adds what only tokenizer_config.json knows. */
function missingTokens(known: readonly AddedToken[], config: Json): AddedToken[] {
  const decoder = config['added_tokens_decoder'];
  if (!isPlainObject(decoder)) return [];
  const contents = new Set(known.map(({ content }) => content));
  return Object.entries(decoder)
    .map(([id, token]) => ({ ...(isPlainObject(token) ? token : {}), id: Number(id) }))
    .filter((token): token is AddedToken => isAddedToken(token) && !contents.has(token.content))
    .sort((a, b) => a.id - b.id);
}

function readTemplates(path: string, config: Json): Map<string, string> {
  const own = readText(path, 'chat_template.jinja');
  if (own !== undefined) return new Map([['default', own]]);
  const written = config['chat_template'] ?? readJson(path, 'chat_template.json')?.['chat_template'];
  if (typeof written === 'string') return new Map([['default', written]]);
  const named = Array.isArray(written) ? written.filter(isPlainObject) : [];
  return new Map(
    named.flatMap(({ name, template }) =>
      typeof name === 'string' && typeof template === 'string' ? [[name, template]] : [],
    ),
  );
}

function identityOf(tokenizer: TokenizerFolder['tokenizer']): string {
  const { normalizer, pre_tokenizer, post_processor, model, added_tokens } = tokenizer;
  // Merges are written as "a b" or as ["a", "b"].
  const merges = Array.isArray(model['merges'])
    ? model['merges'].map((merge: unknown) => (Array.isArray(merge) ? merge.join(' ') : merge))
    : undefined;
  const parts = [normalizer, pre_tokenizer, post_processor, { ...model, merges }, added_tokens];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function readText(folder: string, name: string): string | undefined {
  const path = join(folder, name);
  if (!existsSync(path)) return undefined;
  if (!staysInside(folder, name)) throw broken(folder, name, 'is a link out of the folder');
  try {
    return readTextFile(path, LIMIT);
  } catch (cause) {
    throw broken(folder, name, cause instanceof UnreadableFile ? cause.message : String(cause), cause);
  }
}

function readJson(folder: string, name: string): Json | undefined {
  const text = readText(folder, name);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw broken(folder, name, `is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
  if (!isPlainObject(value)) throw broken(folder, name, 'is no JSON object');
  return value;
}

function broken(folder: string, name: string, found: string, cause?: unknown): MbridgeError {
  return new MbridgeError('io', 'MB_TOKENIZER_FILE', `${join(folder, name)}: ${found}`, {
    hint: 'copy the file once more from where the model came from',
    details: { folder, file: name },
    cause,
  });
}

function noTokenizer(folder: string): MbridgeError {
  const old = ['tokenizer.model', 'vocab.json', 'vocab.txt'].find((name) => existsSync(join(folder, name)));
  const found = !existsSync(folder) ? 'no such folder' : old === undefined ? 'not there' : `not there, only ${old}`;
  const hint =
    old === undefined
      ? 'name a Hugging Face folder that has a tokenizer.json'
      : 'save it once with transformers, which writes tokenizer.json: AutoTokenizer.from_pretrained(A).save_pretrained(B)';
  const where = existsSync(folder) ? join(folder, 'tokenizer.json') : folder;
  return new MbridgeError('io', 'MB_TOKENIZER_FILE', `${where}: ${found}`, { hint, details: { folder } });
}
