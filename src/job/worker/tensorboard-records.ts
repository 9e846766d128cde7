import { crc32c } from '../../base/crc32.js';

// TensorBoard's event files: TFRecords that hold Event messages (tensorflow/core/util/event.proto), of which these are
// the fields that a scalar takes.

function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** One TFRecord: length, data, and a masked CRC-32C of each. */
export function record(data: Uint8Array): Buffer {
  const out = Buffer.alloc(16 + data.length);
  out.writeBigUInt64LE(BigInt(data.length), 0);
  out.writeUInt32LE(maskedCrc32c(out.subarray(0, 8)), 8);
  out.set(data, 12);
  out.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return out;
}

/** The Event that a file begins with. @param seconds since 1970 */
export function fileVersion(seconds: number): Uint8Array {
  return Buffer.concat([wallTime(seconds), field(3, Buffer.from('brain.Event:2'))]);
}

/** An Event with the Summary of a step. */
export function scalars(
  seconds: number,
  step: number,
  values: readonly { readonly tag: string; readonly value: number }[],
): Uint8Array {
  const summary = values.map(({ tag, value }) => {
    const simple = Buffer.alloc(5);
    simple[0] = (2 << 3) | 5;
    simple.writeFloatLE(value, 1);
    return field(1, Buffer.concat([field(1, Buffer.from(tag)), simple]));
  });
  return Buffer.concat([wallTime(seconds), Buffer.from([2 << 3]), varint(step), field(5, Buffer.concat(summary))]);
}

function wallTime(seconds: number): Uint8Array {
  const out = Buffer.alloc(9);
  out[0] = (1 << 3) | 1;
  out.writeDoubleLE(seconds, 1);
  return out;
}

/** A field of protocol buffers that has a length. */
function field(number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from([(number << 3) | 2]), varint(bytes.length), bytes]);
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt(value);
  do {
    const more = rest > 0x7fn;
    bytes.push(Number(rest & 0x7fn) | (more ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}
