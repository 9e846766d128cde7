import { MbridgeError } from '../../base/errors.js';
import { isFloatDtype, toFloat32, type FloatDtype } from './safetensors-convert.js';
import { DTYPE_BYTES } from './safetensors-header.js';
import type { SafetensorsFile, TensorEntry } from './safetensors.js';

/** A rectangle of a matrix, ends excluded; what is left out is the whole range. A vector is a matrix of one column. */
export interface TensorSlice {
  readonly rowStart?: number;
  readonly rowEnd?: number;
  readonly colStart?: number;
  readonly colEnd?: number;
}

interface Rectangle {
  rowStart: number;
  rows: number;
  colStart: number;
  cols: number;
  /** Columns of the whole tensor. */
  width: number;
}

/** How much is read at once: enough for full disk speed, little beside a model. */
const CHUNK_BYTES = 8 << 20;

/** Number of elements of a slice. */
export function sliceSize(tensor: TensorEntry, slice: TensorSlice): number {
  const { rows, cols } = rectangle(tensor, slice);
  return rows * cols;
}

/** Reads a slice of a tensor of floats into `dst` (sliceSize elements, row-major) as float32. */
export async function readSliceInto(
  file: SafetensorsFile,
  name: string,
  slice: TensorSlice,
  dst: Float32Array,
): Promise<void> {
  const tensor = file.tensor(name);
  const { rowStart, rows, colStart, cols, width } = rectangle(tensor, slice);
  if (dst.length !== rows * cols) throw new RangeError(`${dst.length} elements for ${rows} x ${cols} of ${name}`);
  if (dst.length === 0) return;
  const dtype = floatDtype(file, tensor);
  const rowBytes = width * DTYPE_BYTES[dtype];
  const rowsAtOnce = Math.min(rows, Math.max(1, Math.floor(CHUNK_BYTES / rowBytes)));
  const bytes = new Uint8Array(rowsAtOnce * rowBytes);
  const floats = cols === width ? undefined : new Float32Array(rowsAtOnce * width);
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - row);
    const chunk = bytes.subarray(0, count * rowBytes);
    await file.readInto(name, chunk, (rowStart + row) * rowBytes);
    const target = dst.subarray(row * cols, (row + count) * cols);
    if (floats === undefined) {
      toFloat32(dtype, chunk, target);
      continue;
    }
    toFloat32(dtype, chunk, floats.subarray(0, count * width));
    for (let r = 0; r < count; r++) {
      const from = r * width + colStart;
      target.set(floats.subarray(from, from + cols), r * cols);
    }
  }
}

function rectangle(tensor: TensorEntry, slice: TensorSlice): Rectangle {
  const { name, shape } = tensor;
  const height = shape[0] ?? 1;
  const width = shape.slice(1).reduce((product, size) => product * size, 1);
  const { rowStart = 0, rowEnd = height, colStart = 0, colEnd = width } = slice;
  const bad =
    rowStart < 0 || rowStart > rowEnd || rowEnd > height || colStart < 0 || colStart > colEnd || colEnd > width;
  if (bad) {
    throw new RangeError(
      `rows ${rowStart}..${rowEnd}, columns ${colStart}..${colEnd} of ${name} [${shape.join(', ')}]`,
    );
  }
  return { rowStart, rows: rowEnd - rowStart, colStart, cols: colEnd - colStart, width };
}

function floatDtype(file: SafetensorsFile, { name, dtype }: TensorEntry): FloatDtype {
  if (isFloatDtype(dtype)) return dtype;
  throw new MbridgeError('io', 'MB_SAFETENSORS_DTYPE', `${file.path}: tensor ${name} is ${dtype}, expected floats`, {
    hint: 'weights may be F64, F32, F16 or BF16; quantised weights are not supported',
    details: { file: file.path, tensor: name, dtype },
  });
}
