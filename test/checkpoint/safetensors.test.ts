import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { SafetensorsFile, type TensorSpec } from '../../src/checkpoint/files/safetensors.js';
import { layOut } from '../../src/checkpoint/files/safetensors-header.js';
import { readSliceInto } from '../../src/checkpoint/files/safetensors-slice.js';
import { MbridgeError } from '../../src/base/errors.js';
import { mbridgeError, tempFile } from '../data/helpers.js';
import { writeSafetensors } from './write-safetensors.js';

const fixture = (path: string): string => join(import.meta.dirname, '../../fixtures', path);

async function open(path: string): Promise<SafetensorsFile> {
  const file = await SafetensorsFile.open(path);
  onTestFinished(() => file.close());
  return file;
}

/** A file by the format's words, made without our writer. */
function raw(header: unknown, data = 0, pad = ''): Buffer {
  const json = Buffer.from((typeof header === 'string' ? header : JSON.stringify(header)) + pad, 'utf8');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.from(Uint8Array.from({ length: data }, (_, i) => i))]);
}
const f32 = (from: number, to: number, shape = [(to - from) / 4]): object => ({
  dtype: 'F32',
  shape,
  data_offsets: [from, to],
});

describe('reading', () => {
  it('reads rows and byte ranges', async () => {
    const header = { b: f32(8, 32, [3, 2]), a: f32(0, 8), __metadata__: { format: 'pt' } };
    const path = tempFile('a.safetensors', raw(header, 32, '   '));
    const file = await open(path);
    expect([...file.tensors.keys()]).toEqual(['a', 'b']);
    expect(file.metadata).toEqual({ format: 'pt' });
    expect([...(await file.readRows('b', 1, 3))]).toEqual(Array.from({ length: 16 }, (_, i) => 16 + i));
    expect((await file.readRows('b', 2, 2)).length).toBe(0);
    const dst = new Uint8Array(3);
    await file.readInto('b', dst, 5);
    expect([...dst]).toEqual([13, 14, 15]);
    await expect(file.readInto('a', new Uint8Array(9))).rejects.toThrow(RangeError);
    await expect(file.readRows('b', 2, 4)).rejects.toThrow(RangeError);
    const error = await mbridgeError(() => file.tensor('c'));
    expect(error).toMatchObject({ code: 'MB_SAFETENSORS_NO_TENSOR', exitCode: 7 });
    expect(error.message).toContain('"c"');
  });

  it('accepts what the format allows', async () => {
    const odd =
      '{"__proto__":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},"10":{"dtype":"BOOL","shape":[2,1],"data_offsets":[0,2]}}';
    expect([...(await open(tempFile('a', raw(odd, 2)))).tensors.keys()]).toEqual(['10', '__proto__']);
    expect((await open(tempFile('a', raw({})))).tensors.size).toBe(0);
  });
});

describe('a file that is not right', () => {
  const good = { a: f32(0, 8), b: f32(8, 16) };
  it.each<[string, Buffer | string, string, RegExp]>([
    ['empty', Buffer.alloc(0), 'TRUNCATED', /expected 8 bytes, found 0/],
    ['cut in the length', raw(good, 16).subarray(0, 5), 'TRUNCATED', /expected 8 bytes, found 5/],
    ['cut in the header', raw(good, 16).subarray(0, 50), 'TRUNCATED', /expected at least \d+ bytes, found 50/],
    ['cut in the data', raw(good, 15), 'TRUNCATED', /expected (\d+) bytes, found \d+/],
    ['bytes too many', raw(good, 17), 'HEADER', /its tensors end at byte/],
    ['text', 'Call me Ishmael. Some years ago', 'HEADER', /header length \d+ is over/],
    ['not JSON', raw('{"a":', 0), 'HEADER', /not JSON/],
    ['not UTF-8', Buffer.concat([raw('', 0).fill(2, 0, 1), Buffer.from([0xff, 0xfe])]), 'HEADER', /not JSON/],
    ['a list', raw([1]), 'HEADER', /not a JSON object/],
    ['an overlap', raw({ a: f32(0, 8), b: f32(4, 12) }, 12), 'HEADER', /"b" starts at data byte 4, expected 8/],
    ['a hole', raw({ a: f32(0, 8), b: f32(12, 20) }, 20), 'HEADER', /overlap or leave a hole/],
    ['a hole before the first', raw({ a: f32(4, 12) }, 12), 'HEADER', /starts at data byte 4, expected 0/],
    [
      'shape and bytes differ',
      raw({ a: f32(0, 8, [3]) }, 8),
      'HEADER',
      /F32 \[3\] takes 12 bytes, data_offsets give it 8/,
    ],
    ['falling offsets', raw({ a: f32(8, 0, [2]) }, 8), 'HEADER', /give it -8/],
    ['an unknown dtype', raw({ a: { ...f32(0, 8), dtype: 'F31' } }, 8), 'HEADER', /"a": unknown dtype "F31"/],
    ['a dtype of Object', raw({ a: { ...f32(0, 8), dtype: 'constructor' } }, 8), 'HEADER', /unknown dtype/],
    ['a negative size', raw({ a: f32(0, 8, [-2]) }, 8), 'HEADER', /bad shape \[-2\]/],
    ['a fractional size', raw({ a: f32(0, 8, [0.5]) }, 8), 'HEADER', /bad shape/],
    ['no shape', raw({ a: { dtype: 'F32', data_offsets: [0, 8] } }, 8), 'HEADER', /bad shape undefined/],
    ['sizes past 2^53', raw({ a: f32(0, 8, [2 ** 40, 2 ** 40]) }, 8), 'HEADER', /takes/],
    ['one offset', raw({ a: { dtype: 'F32', shape: [2], data_offsets: [0] } }, 8), 'HEADER', /bad data_offsets/],
    ['a tensor that is a number', raw({ a: 3 }), 'HEADER', /"a": not a JSON object/],
    ['metadata that is no map of strings', raw({ __metadata__: { a: 1 } }), 'HEADER', /__metadata__/],
  ])('%s', async (_, content, code, message) => {
    const path = tempFile('model.safetensors', content);
    const error = await mbridgeError(() => open(path));
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ code: `MB_SAFETENSORS_${code}`, exitCode: 7, details: { file: path } });
    expect(error.message).toContain(path);
    expect(error.hint).toBeTruthy();
  });

  it('truncation says the sizes', async () => {
    const bytes = readFileSync(fixture('qwen3-tied/model.safetensors'));
    const path = tempFile('model.safetensors', bytes.subarray(0, 600_000));
    const error = await mbridgeError(() => open(path));
    expect(error.details).toEqual({ file: path, expected: bytes.length, found: 600_000 });
    expect(error.message).toBe(`${path}: truncated: expected ${bytes.length} bytes, found 600000`);
  });

  it.each([
    ['missing', '/nonexistent/a.safetensors', /no such file/],
    ['a folder', import.meta.dirname, /not a regular file/],
  ])('%s', async (_, path, message) => {
    const error = await mbridgeError(() => open(path));
    expect(error).toMatchObject({ code: 'MB_SAFETENSORS_OPEN', exitCode: 7 });
    expect(error.message).toMatch(message);
  });

  it('never fails but with an MbridgeError: cut anywhere, any header bits flipped', async () => {
    const whole = raw(
      { __metadata__: { k: 'v' }, a: f32(0, 8), 'b.weight': f32(8, 24, [2, 2]), c: f32(24, 24, [0, 3]) },
      24,
    );
    const path = tempFile('model.safetensors', whole);
    const opens = async (bytes: Uint8Array): Promise<boolean> => {
      writeFileSync(path, bytes);
      try {
        const file = await SafetensorsFile.open(path);
        for (const name of file.tensors.keys()) await file.readRows(name);
        await file.close();
        return true;
      } catch (error) {
        expect(error).toBeInstanceOf(MbridgeError);
        expect((error as MbridgeError).exitCode).toBe(7);
        return false;
      }
    };
    expect(await opens(whole)).toBe(true);
    for (let length = 0; length < whole.length; length++) expect(await opens(whole.subarray(0, length))).toBe(false);
    let refused = 0;
    const headBits = (whole.length - 24) * 8;
    for (let bit = 0; bit < headBits; bit++) {
      const bytes = Buffer.from(whole);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      if (!(await opens(bytes))) refused++;
    }
    // A flip in a name or in the metadata is another good file; nearly every other one must be refused.
    expect(refused / headBits).toBeGreaterThan(0.8);
  });
});

describe('laying out', () => {
  const specs: TensorSpec[] = [
    { name: 'mask', dtype: 'U8', shape: [3] },
    { name: 'w"\n', dtype: 'BF16', shape: [5] },
    { name: 'x', dtype: 'F32', shape: [2, 3] },
    { name: 'scalar', dtype: 'F64', shape: [] },
    { name: 'none', dtype: 'F32', shape: [0, 4] },
  ];
  const sizes: Readonly<Record<string, number>> = { mask: 3, 'w"\n': 10, x: 24, scalar: 8, none: 0 };
  const bytesOf = (name: string): Uint8Array =>
    Uint8Array.from({ length: sizes[name] as number }, (_, i) => i * 7 + name.length);

  it('gives each tensor an aligned place, in which it is read back', async () => {
    const path = tempFile('a', '');
    writeSafetensors(
      path,
      specs.map((spec) => [spec, bytesOf(spec.name)]),
      { format: 'pt' },
    );
    const file = await open(path);
    expect(file.metadata).toEqual({ format: 'pt' });
    expect(new Set(file.tensors.keys())).toEqual(new Set(specs.map((spec) => spec.name)));
    for (const spec of specs) {
      const entry = file.tensor(spec.name);
      expect(entry).toMatchObject(spec);
      const size = { U8: 1, BF16: 2, F32: 4, F64: 8 }[spec.dtype as 'U8'];
      expect(entry.offset % size).toBe(0);
      expect([...(await file.readRows(spec.name))]).toEqual([...bytesOf(spec.name)]);
    }
  });

  it('refuses two tensors of one name', () => {
    const spec = { name: 'a', dtype: 'U8', shape: [1] } as const;
    expect(() => layOut([spec, spec], {})).toThrow(/given twice/);
  });
});

describe('slices', () => {
  const [rows, cols] = [5000, 700];

  async function matrix(dtype: 'F32' | 'F64' | 'BF16' | 'I32'): Promise<SafetensorsFile> {
    const value = (i: number): number => i % 251;
    const values = Float32Array.from({ length: rows * cols }, (_, i) => value(i));
    const path = tempFile('m', '');
    const stored = {
      F32: () => values,
      F64: () => Float64Array.from(values),
      // Integers up to 256 are exact in bfloat16: the upper half of the float32.
      BF16: () => Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16),
      I32: () => Int32Array.from(values),
    }[dtype]();
    writeSafetensors(path, [[{ name: 'm', dtype, shape: [rows, cols] }, new Uint8Array(stored.buffer)]]);
    return open(path);
  }

  it.each([
    ['F32', {}],
    ['F32', { rowStart: 10, rowEnd: 4999 }],
    ['F32', { colStart: 100, colEnd: 101 }],
    ['F64', { rowStart: 1, colStart: 350 }],
    ['BF16', { rowStart: 2500, colStart: 1, colEnd: 699 }],
    ['BF16', { rowEnd: 0 }],
  ] as const)('%s %o', async (dtype, slice) => {
    const { rowStart, rowEnd, colStart, colEnd } = { rowStart: 0, rowEnd: rows, colStart: 0, colEnd: cols, ...slice };
    const dst = new Float32Array((rowEnd - rowStart) * (colEnd - colStart)).fill(-1);
    await readSliceInto(await matrix(dtype), 'm', slice, dst);
    let [wrong, i] = [0, 0];
    for (let r = rowStart; r < rowEnd; r++) {
      for (let c = colStart; c < colEnd; c++) if (dst[i++] !== (r * cols + c) % 251) wrong++;
    }
    expect(wrong).toBe(0);
  });

  it('refuses integers and bad ranges', async () => {
    const file = await matrix('I32');
    const error = await mbridgeError(() => readSliceInto(file, 'm', {}, new Float32Array(rows * cols)));
    expect(error).toMatchObject({ code: 'MB_SAFETENSORS_DTYPE', exitCode: 7 });
    await expect(readSliceInto(file, 'm', { rowEnd: rows + 1 }, new Float32Array(1))).rejects.toThrow(RangeError);
  });
});
