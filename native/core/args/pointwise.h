// Arguments of the ops over rows and flat runs: SWIGLU_*, ADD, BIAS_*, CAST, ACCUMULATE, COPY_2D, FILL, SUMSQ of
// ops.def.
#pragma once
#include "core/op_args.h"

namespace mb {

struct SwigluArgs {
  int64_t tokens, f;
  int dtype;
  const void *dout, *gu;  // dout: backward only
  void* out;              // out, or dgu
};

inline SwigluArgs read_swiglu_fwd(OpArgs& a) {
  SwigluArgs z{};
  z.tokens = a.size(0);
  z.f = a.size(1, 1);
  z.dtype = a.act(0);
  const int64_t n = times(z.tokens, z.f);
  z.gu = a.tensor(0, z.dtype, times(n, 2));
  z.out = a.tensor(1, z.dtype, n);
  a.distinct(0, 1);
  return z;
}

inline SwigluArgs read_swiglu_bwd(OpArgs& a) {
  SwigluArgs z{};
  z.tokens = a.size(0);
  z.f = a.size(1, 1);
  z.dtype = a.act(0);
  const int64_t n = times(z.tokens, z.f);
  z.dout = a.tensor(0, z.dtype, n);
  z.gu = a.tensor(1, z.dtype, times(n, 2));
  z.out = a.tensor(2, z.dtype, times(n, 2));
  a.same_or_distinct(1, 2);
  a.distinct(0, 2);
  return z;
}

struct AddArgs {
  int64_t n;
  int dtype;
  const void *a, *b;
  void* out;
};

inline AddArgs read_add(OpArgs& a) {
  AddArgs z{};
  z.n = a.size(0);
  z.dtype = a.act(0);
  z.a = a.tensor(0, z.dtype, z.n);
  z.b = a.tensor(1, z.dtype, z.n);
  z.out = a.tensor(2, z.dtype, z.n);
  a.same_or_distinct(0, 2);
  a.same_or_distinct(1, 2);
  return z;
}

struct BiasAddArgs {
  int64_t rows, cols;
  int dtype;
  void* y;
  const void* bias;
};

inline BiasAddArgs read_bias_add(OpArgs& a) {
  BiasAddArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1, 1);
  z.dtype = a.act(0);
  z.y = a.tensor(0, z.dtype, times(z.rows, z.cols));
  z.bias = a.tensor(1, z.dtype, z.cols);
  a.distinct(0, 1);
  return z;
}

struct BiasGradArgs {
  int64_t rows, cols;
  bool accumulate;
  int dtype;
  const void* dy;
  float *db, *ws;
};

inline BiasGradArgs read_bias_grad(OpArgs& a) {
  BiasGradArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1, 1);
  z.accumulate = a.flag(2);
  z.dtype = a.act(0);
  z.dy = a.tensor(0, z.dtype, times(z.rows, z.cols));
  z.db = a.f32(1, z.cols);
  z.ws = a.scratch(2, times(MB_REDUCE_PARTS * 4, z.cols));
  a.distinct(0, 1);
  return z;
}

struct CastArgs {
  int64_t n;
  int from, to;
  const void* in;
  void* out;
};

inline CastArgs read_cast(OpArgs& a) {
  CastArgs z{};
  z.n = a.size(0);
  z.from = a.act(0);
  z.to = a.act(1);
  z.in = a.tensor(0, z.from, z.n);
  z.out = a.tensor(1, z.to, z.n);
  if (z.from == z.to) {
    a.same_or_distinct(0, 1);
  } else {
    a.distinct(0, 1);
  }
  return z;
}

struct AccumulateArgs {
  int64_t rows, cols, ldx, ldout;
  bool first;
  int dtype;
  const void* x;
  float* sum;
  void* out;
};

inline AccumulateArgs read_accumulate(OpArgs& a) {
  AccumulateArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1, 8);
  z.ldx = a.size(2, z.cols);
  z.ldout = a.size(3, z.cols);
  z.first = a.flag(4);
  a.require(z.cols % 8 == 0 && z.ldx % 8 == 0 && z.ldout % 8 == 0, "columns that are multiples of 8");
  z.dtype = a.act(0);
  z.x = a.tensor16(0, z.dtype, extent(z.rows, z.ldx, z.cols));
  z.sum = static_cast<float*>(a.tensor16(1, MB_F32, times(z.rows, z.cols)));
  z.out = a.tensor16(2, z.dtype, extent(z.rows, z.ldout, z.cols));
  a.distinct(0, 1);
  a.distinct(0, 2);
  a.distinct(1, 2);
  return z;
}

struct Copy2dArgs {
  int64_t rows, row_bytes, src_stride, dst_stride;
  const void* src;
  void* dst;
};

inline Copy2dArgs read_copy_2d(OpArgs& a) {
  Copy2dArgs z{};
  z.rows = a.size(0);
  z.row_bytes = a.size(1);
  z.src_stride = a.size(2, z.rows > 1 ? z.row_bytes : 0);
  z.dst_stride = a.size(3, z.rows > 1 ? z.row_bytes : 0);
  const auto bytes = [&](int64_t stride) { return z.row_bytes == 0 ? 0 : extent(z.rows, stride, z.row_bytes); };
  z.src = a.memory(0, bytes(z.src_stride));
  z.dst = a.memory(1, bytes(z.dst_stride));
  a.disjoint_rows(0, z.row_bytes, z.src_stride, 1, z.row_bytes, z.dst_stride);
  return z;
}

struct ShiftArgs {
  int64_t n;
  int32_t by;
  const int32_t* in;
  int32_t* out;
};

inline ShiftArgs read_shift(OpArgs& a) {
  ShiftArgs z{};
  z.n = a.size(0);
  z.by = static_cast<int32_t>(a.size(1, -(int64_t{1} << 30), int64_t{1} << 30));
  z.in = a.i32(0, z.n);
  z.out = a.i32(1, z.n);
  a.same_or_distinct(0, 1);
  return z;
}

struct FillArgs {
  int64_t n;
  double value;  // may be infinite or not a number
  int dtype;
  void* out;
};

inline FillArgs read_fill(OpArgs& a) {
  FillArgs z{};
  z.n = a.size(0);
  z.value = a.value(1);
  z.dtype = a.dtype(0);
  const bool integer = z.dtype == MB_I32 || z.dtype == MB_U8;
  const double low = z.dtype == MB_I32 ? -2147483648.0 : 0.0;
  const double high = z.dtype == MB_I32 ? 2147483647.0 : 255.0;
  z.out = a.tensor(0, z.dtype, z.n);
  a.require(!integer || (z.value >= low && z.value <= high && z.value == floor(z.value)),
            "a value that the integer dtype holds");
  return z;
}

struct SumsqArgs {
  int64_t n;
  bool accumulate;
  int dtype;
  const void* x;
  float *out, *ws;
};

inline SumsqArgs read_sumsq(OpArgs& a) {
  SumsqArgs z{};
  z.n = a.size(0);
  z.accumulate = a.flag(1);
  z.dtype = a.act(0);
  z.x = a.tensor(0, z.dtype, z.n);
  z.out = a.f32(1, 1);
  z.ws = a.scratch(2, MB_REDUCE_PARTS * 4);
  return z;
}

}  // namespace mb
