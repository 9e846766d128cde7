import type { CheckedFile } from '../files/checked-file.js';
import { LENGTH_BYTES, parseHeader, parseHeaderLength, type TensorEntry } from '../files/safetensors-header.js';

/** The tensors of a safetensors file, by name. */
export async function readHeaderOf(file: CheckedFile): Promise<ReadonlyMap<string, TensorEntry>> {
  const first = new Uint8Array(Math.min(LENGTH_BYTES, file.bytes));
  await file.read(first, 0);
  const json = new Uint8Array(parseHeaderLength(first, file.path, file.bytes));
  await file.read(json, LENGTH_BYTES);
  return new Map(parseHeader(json, file.path, file.bytes).tensors.map((tensor) => [tensor.name, tensor]));
}
