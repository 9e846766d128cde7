// Arguments of the norms: see RMSNORM_* in ops.def. Struct members are what a kernel is given; nothing is read where
// the check failed.
#pragma once
#include <initializer_list>

#include "core/op_args.h"

namespace mb {

struct RmsnormFwdArgs {
  int64_t rows, cols;
  float eps;
  int dtype;
  const void *x, *delta, *w;  // delta: ADD_RMSNORM_FWD only
  void *sum, *y;
  float* rstd;
};

inline RmsnormFwdArgs read_rmsnorm_fwd(OpArgs& a) {
  RmsnormFwdArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1);
  z.eps = static_cast<float>(a.real(2));
  z.dtype = a.act(0);
  const int64_t n = times(z.rows, z.cols);
  z.x = a.tensor(0, z.dtype, n);
  z.w = a.tensor(1, z.dtype, z.cols);
  z.y = a.tensor(2, z.dtype, n);
  z.rstd = a.f32(3, z.rows);
  a.same_or_distinct(0, 2);
  return z;
}

inline RmsnormFwdArgs read_add_rmsnorm_fwd(OpArgs& a) {
  RmsnormFwdArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1);
  z.eps = static_cast<float>(a.real(2));
  z.dtype = a.act(0);
  const int64_t n = times(z.rows, z.cols);
  z.x = a.tensor(0, z.dtype, n);
  z.delta = a.tensor(1, z.dtype, n);
  z.w = a.tensor(2, z.dtype, z.cols);
  z.sum = a.tensor(3, z.dtype, n);
  z.y = a.tensor(4, z.dtype, n);
  z.rstd = a.f32(5, z.rows);
  for (const int in : {0, 1}) {
    for (const int out : {3, 4}) a.same_or_distinct(in, out);
  }
  a.distinct(3, 4);
  return z;
}

struct RmsnormBwdArgs {
  int64_t rows, cols;
  bool accumulate_dx, accumulate_dw;
  int dtype;
  const void *dy, *x, *w;
  const float* rstd;
  void* dx;
  float *dw, *ws;  // null where dw is not wanted
};

inline RmsnormBwdArgs read_rmsnorm_bwd(OpArgs& a) {
  RmsnormBwdArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1);
  z.accumulate_dx = a.flag(2);
  z.accumulate_dw = a.flag(3);
  z.dtype = a.act(0);
  const int64_t n = times(z.rows, z.cols);
  z.dy = a.tensor(0, z.dtype, n);
  z.x = a.tensor(1, z.dtype, n);
  z.w = a.tensor(2, z.dtype, z.cols);
  z.rstd = a.f32(3, z.rows);
  z.dx = a.tensor(4, z.dtype, n);
  z.dw = a.f32_opt(5, z.cols);
  z.ws = a.scratch(6, z.dw == nullptr ? 0 : times(MB_REDUCE_PARTS * 4, z.cols));
  a.same_or_distinct(0, 4);
  a.same_or_distinct(1, 4);
  return z;
}

}  // namespace mb
