import { expect, test } from 'vitest';
import { opCost } from '../../src/bench/device/call-cost.js';
import { DTYPES } from '../../src/engine/dtype.js';
import { OPS } from '../../src/engine/op-table.js';

const [M, N, K] = [128, 256, 384];
const PRODUCT = M * N * K;

/** What the binding is given: arena, offset, bytes and type of every tensor, then the scalars. */
function costOf(op: keyof typeof OPS, tensors: readonly (readonly [number, number])[], scalars: readonly number[]) {
  const args = Float64Array.from([...tensors.flatMap(([bytes, dtype]) => [0, 0, bytes, dtype]), ...scalars]);
  return opCost(OPS[op].number, args, tensors.length, scalars.length);
}

test.each([
  ['bf16', 2 * M * N, 0, ''],
  ['bf16', 2 * M * N, 1, ' +='],
  ['f32', 4 * M * N, 1, ' to f32 +='],
] as const)('a product of e4m3 to %s: %i bytes, beta %i', (output, bytes, beta, detail) => {
  const { u8, f32 } = DTYPES;
  const [scalesA, scalesB] = [(4 * M * K) / 128, 4 * (N / 128) * 4];
  const tensors = [
    [M * K, u8.code],
    [scalesA, f32.code],
    [N * K, u8.code],
    [scalesB, f32.code],
    [bytes, DTYPES[output].code],
  ] as const;
  expect(costOf('gemmFp8', tensors, [M, N, K, 1, 128, beta])).toEqual({
    name: `gemm_fp8 ${M}x${N}x${K}${detail}`,
    bytes: M * K + scalesA + N * K + scalesB + (1 + beta) * bytes,
    flops: PRODUCT,
  });
});

test('a product of bf16 has twice the work of one in e4m3', () => {
  const bf16 = DTYPES.bf16.code;
  const tensors = [M * K, N * K, M * N, M * N].map((count) => [2 * count, bf16] as const);
  const found = costOf('gemm', tensors, [M, N, K, 0, 1, K, K, N, N, 1, 0, 0]);
  expect(found).toMatchObject({ name: `gemm ${M}x${N}x${K} NT`, flops: 2 * PRODUCT });
});
