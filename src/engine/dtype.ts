/** Element types of the engine, with the numbers of `mb_dtype` in native/core/abi.h. */
export const DTYPES = {
  f32: { code: 0, bytes: 4 },
  bf16: { code: 1, bytes: 2 },
  i32: { code: 2, bytes: 4 },
  f64: { code: 3, bytes: 8 },
  u8: { code: 4, bytes: 1 },
} as const;

export type DType = keyof typeof DTYPES;
/** What activations and weights are kept in. */
export type ActDType = 'f32' | 'bf16';
