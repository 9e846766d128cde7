import { existsSync } from 'node:fs';
import { z } from 'zod';
import { MbridgeError } from '../../base/errors.js';
import { readTextFile } from '../../base/regular-file.js';
import { badData, unreadable } from '../data-error.js';
import type { Tokenizer } from '../tokenizer.js';

const LIMIT = 1 << 30;

const schema = z.object({
  format: z.literal(1),
  mbridge: z.string(),
  /** Of chat, documents come in twos: the tokens of a conversation, and for each of them 1 where the assistant speaks. */
  content: z.enum(['text', 'chat']).default('text'),
  tokenizer: z.object({ name: z.string(), identity: z.string(), vocab_size: z.int().min(1) }),
  /** The token that ends every document, null where none does. */
  eod: z.int().min(0).nullable(),
  field: z.string(),
  dtype: z.enum(['uint16', 'int32']),
  documents: z.int().min(0),
  tokens: z.int().min(0),
  /** Lines and rows that are no document, and texts without a character. */
  bad: z.int().min(0),
  empty: z.int().min(0),
  inputs: z.array(z.object({ path: z.string(), bytes: z.int().min(0) })),
  /** Bytes of text that each token stands for: one byte an id, in base64; null where that is not known. */
  token_bytes: z.base64().nullable().default(null),
});

/** PREFIX.json: what stands in a pair, and where it came from. Equal inputs give equal bytes. */
export type Sidecar = z.output<typeof schema>;

/** undefined where there is none: a pair that Megatron's own tools wrote. @throws MbridgeError MB_DATA_INDEX (exit 7) */
export function readSidecar(prefix: string): Sidecar | undefined {
  const path = `${prefix}.json`;
  if (!existsSync(path)) return undefined;
  let text: string;
  try {
    text = readTextFile(path, LIMIT);
  } catch (cause) {
    throw unreadable(path, cause, 'the prefix');
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const found = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    throw badData(
      'MB_DATA_INDEX',
      path,
      `does not describe a pair: ${found}`,
      'write the pair again (mbridge data prepare)',
    );
  }
}

/** The value of `token_bytes`: null also for a tokenizer that has a token of more than 255 bytes. */
export function packTokenBytes(tokenBytes: ArrayLike<number> | undefined): string | null {
  if (tokenBytes === undefined) return null;
  const all = Array.from(tokenBytes);
  return all.every((bytes) => bytes <= 255) ? Buffer.from(all).toString('base64') : null;
}

/** What {@link packTokenBytes} has packed. */
export function tokenBytesOf(sidecar: Sidecar | undefined): Uint8Array | undefined {
  const packed = sidecar?.token_bytes ?? null;
  return packed === null ? undefined : Buffer.from(packed, 'base64');
}

export function sidecarText(sidecar: Sidecar): string {
  return `${JSON.stringify(sidecar, null, 1)}\n`;
}

/** Refuses a tokenizer with which a pair was not made. @throws MbridgeError MB_DATA_TOKENIZER (exit 3) */
export function checkBelongs(prefix: string, sidecar: Sidecar, tokenizer: Pick<Tokenizer, 'name' | 'identity'>): void {
  const { name, identity } = sidecar.tokenizer;
  if (identity === tokenizer.identity) return;
  throw new MbridgeError('config', 'MB_DATA_TOKENIZER', `${prefix} was made with another tokenizer (${name})`, {
    hint: `use that one, or prepare the texts again with ${tokenizer.name}`,
    details: { prefix, data: identity, tokenizer: tokenizer.identity },
  });
}
