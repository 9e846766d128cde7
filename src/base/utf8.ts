import { isUtf8 } from 'node:buffer';

/** Checks a byte stream for UTF-8, chunk by chunk: a character may be cut between two of them. */
export class Utf8Check {
  /** The first bytes of a character whose rest is in the next chunk. */
  #cut = Buffer.alloc(0);
  /** Bytes checked, without those of `#cut`. */
  #position = 0;

  /** Where the first byte lies that no UTF-8 text has there, from the start of the stream; -1 where all are right. */
  push(chunk: Uint8Array): number {
    const bytes = this.#cut.length === 0 ? chunk : Buffer.concat([this.#cut, chunk]);
    const whole = bytes.length - cutBytes(bytes);
    const body = bytes.subarray(0, whole);
    if (!isUtf8(body)) return this.#position + firstBadByte(body);
    this.#position += whole;
    this.#cut = Buffer.from(bytes.subarray(whole));
    return -1;
  }

  /** As `push`, at the end of the stream. */
  end(): number {
    return this.#cut.length === 0 ? -1 : this.#position;
  }
}

/** Place of the first byte of `bytes` that no UTF-8 text has there, or -1. */
export function badUtf8At(bytes: Uint8Array): number {
  return isUtf8(bytes) ? -1 : firstBadByte(bytes);
}

/** How many bytes at the end begin a character that is not over. */
function cutBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte >= 0xc0) return lengthOf(byte) > back ? back : 0;
    if (byte < 0x80) return 0;
  }
  return 0;
}

/** Bytes of the character that starts with `lead`; 1 for what starts none. */
function lengthOf(lead: number): number {
  return lead >= 0xf5 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
}

function firstBadByte(bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length;) {
    const length = lengthOf(bytes[at] as number);
    if (!isUtf8(bytes.subarray(at, at + length))) return at;
    at += length;
  }
  return bytes.length;
}
