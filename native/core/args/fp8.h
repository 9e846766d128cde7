// Arguments of FP8_QUANTIZE, SWIGLU_*_FP8 and GEMM_FP8 of ops.def.
#pragma once
#include "core/fp8.h"
#include "core/op_args.h"

namespace mb {

// A matrix of codes and its scales; codes is null where it is not wanted.
struct Fp8Matrix {
  int64_t rows, cols;
  int block;  // rows of a block
  uint8_t* codes;
  float* scales;
};

// From one row of scales to the next where blocks have 128 rows.
MB_HD inline int64_t fp8_scale_stride(int64_t cols) { return (cols / kFp8Block + 3) / 4 * 4; }

// Scales of a matrix.
inline int64_t fp8_scales(int64_t rows, int64_t cols, int block) {
  return block == 1 ? times(rows, cols / kFp8Block) : times((rows + 127) / 128, fp8_scale_stride(cols));
}

inline int read_fp8_block(OpArgs& a, int scalar) {
  const auto block = static_cast<int>(a.size(scalar, 1, kFp8Block));
  a.require(block == 1 || block == kFp8Block, "blocks of 1 or 128 rows");
  return block;
}

// Codes at tensor i, scales after them.
inline Fp8Matrix read_fp8_matrix(OpArgs& a, int i, int64_t rows, int64_t cols, int block) {
  Fp8Matrix z{rows, cols, block, nullptr, nullptr};
  z.codes = static_cast<uint8_t*>(a.tensor16(i, MB_U8, times(rows, cols)));
  z.scales = static_cast<float*>(a.tensor16(i + 1, MB_F32, fp8_scales(rows, cols, block)));
  return z;
}

// What is quantised, [rows, cols], comes of x, or of SwiGLU: forward of x = gu, backward of it and dout.
struct Fp8QuantizeArgs {
  int64_t rows, cols;
  int dtype;
  const void *dout, *x;
  Fp8Matrix q, t;
};

// The outputs are the tensors from `first` on.
inline void read_fp8_outputs(OpArgs& a, int first, Fp8QuantizeArgs* z) {
  const int q_block = read_fp8_block(a, 2), t_block = read_fp8_block(a, 3);
  const bool q = a.present(first) || a.present(first + 1), t = a.present(first + 2) || a.present(first + 3);
  a.require(q || t, "q and qs, or t and ts");
  a.require(z->cols % kFp8Block == 0, "columns that are multiples of 128");
  a.require(z->rows % (t || q_block == kFp8Block ? kFp8Block : 4) == 0,
            "rows that are multiples of 128 where t or a block of 128 rows is asked for, else of 4");
  if (q) z->q = read_fp8_matrix(a, first, z->rows, z->cols, q_block);
  if (t) z->t = read_fp8_matrix(a, first + 2, z->cols, z->rows, t_block);
  for (int j = first; j < first + 4; ++j) {
    for (int i = 0; i < j; ++i) a.distinct(i, j);
  }
}

inline Fp8QuantizeArgs read_fp8_quantize(OpArgs& a) {
  Fp8QuantizeArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1, 1);
  z.dtype = a.act(0);
  z.x = a.tensor16(0, z.dtype, times(z.rows, z.cols));
  read_fp8_outputs(a, 1, &z);
  return z;
}

inline Fp8QuantizeArgs read_swiglu_fwd_fp8(OpArgs& a) {
  Fp8QuantizeArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1, 1);
  z.dtype = a.act(0);
  z.x = a.tensor16(0, z.dtype, times(times(z.rows, z.cols), 2));
  read_fp8_outputs(a, 1, &z);
  return z;
}

inline Fp8QuantizeArgs read_swiglu_bwd_fp8(OpArgs& a) {
  Fp8QuantizeArgs z{};
  z.rows = a.size(0);
  const int64_t f = a.size(1, 1);
  a.require(f % kFp8Block == 0, "columns that are multiples of 128");
  z.cols = times(f, 2);
  z.dtype = a.act(0);
  z.dout = a.tensor16(0, z.dtype, times(z.rows, f));
  z.x = a.tensor16(1, z.dtype, times(z.rows, z.cols));
  read_fp8_outputs(a, 2, &z);
  return z;
}

struct GemmFp8Args {
  int64_t m, n, k;
  bool accumulate;
  Fp8Matrix a, b;
  int output;
  void* d;
};

inline GemmFp8Args read_gemm_fp8(OpArgs& a) {
  GemmFp8Args z{};
  z.m = a.size(0);
  z.n = a.size(1);
  z.k = a.size(2, 1);
  const int a_block = read_fp8_block(a, 3), b_block = read_fp8_block(a, 4);
  z.accumulate = a.flag(5);
  a.require(a_block == 1 || b_block == 1, "A or B in blocks of 1 row");
  a.require(z.m % 4 == 0 && z.n % 16 == 0 && z.k % kFp8Block == 0, "m to be a multiple of 4, n of 16 and k of 128");
  a.require(z.m % a_block == 0 && z.n % b_block == 0, "rows that are multiples of 128 in blocks of 128");
  z.a = read_fp8_matrix(a, 0, z.m, z.k, a_block);
  z.b = read_fp8_matrix(a, 2, z.n, z.k, b_block);
  z.output = a.act(4);
  z.d = a.tensor16(4, z.output, times(z.m, z.n));
  for (int i = 0; i < 4; ++i) a.distinct(i, 4);
  return z;
}

}  // namespace mb
