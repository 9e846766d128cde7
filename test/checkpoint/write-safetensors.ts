import { writeFileSync } from 'node:fs';
import { layOut, type TensorSpec } from '../../src/checkpoint/files/safetensors-header.js';

/** Writes a safetensors file of these tensors and their bytes. */
export function writeSafetensors(
  path: string,
  tensors: readonly (readonly [spec: TensorSpec, bytes: Uint8Array])[],
  metadata: Readonly<Record<string, string>> = {},
): void {
  const { head, header } = layOut(
    tensors.map(([spec]) => spec),
    metadata,
  );
  const bytesOf = new Map(tensors.map(([{ name }, bytes]) => [name, bytes]));
  const parts = header.tensors.map(({ name, bytes }) => {
    const data = bytesOf.get(name);
    if (data?.length !== bytes) throw new RangeError(`${name}: ${data?.length} bytes instead of ${bytes}`);
    return data;
  });
  writeFileSync(path, Buffer.concat([head, ...parts]));
}
