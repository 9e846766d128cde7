// Arguments of GEMM of ops.def.
#pragma once
#include "core/op_args.h"

namespace mb {

struct GemmArgs {
  int64_t m, n, k;
  bool ta, tb;
  int64_t lda, ldb, ldc, ldd;
  float alpha, beta;
  int input, output;      // dtypes of A and B, and of C and D
  const void *a, *b, *c;  // c: null where beta is 0
  void* d;
  bool fixed_order;
};

inline GemmArgs read_gemm(OpArgs& args) {
  GemmArgs z{};
  z.m = args.size(0);
  z.n = args.size(1);
  z.k = args.size(2);
  z.ta = args.flag(3);
  z.tb = args.flag(4);
  z.lda = args.size(5, z.ta ? z.m : z.k);
  z.ldb = args.size(6, z.tb ? z.k : z.n);
  z.alpha = static_cast<float>(args.real(9));
  z.beta = static_cast<float>(args.real(10));
  z.ldc = args.size(7, z.beta == 0 ? 0 : z.n);
  z.ldd = args.size(8, z.n);
  z.fixed_order = args.flag(11);
  args.require(!z.fixed_order || (!z.ta && z.tb && z.alpha == 1 && z.beta == 0),
               "a fixed order of sums only of A B^T, with alpha 1 and beta 0");
  args.require(z.k > 0 || z.m == 0 || z.n == 0, "k >= 1");
  z.input = args.act(0);
  z.output = args.act(3);
  z.a = args.tensor(0, z.input, extent(z.ta ? z.k : z.m, z.lda, z.ta ? z.m : z.k));
  z.b = args.tensor(1, z.input, extent(z.tb ? z.n : z.k, z.ldb, z.tb ? z.k : z.n));
  if (z.beta != 0) z.c = args.tensor(2, z.output, extent(z.m, z.ldc, z.n));
  z.d = args.tensor(3, z.output, extent(z.m, z.ldd, z.n));
  args.require(z.c == nullptr || z.c != z.d || z.ldc == z.ldd, "ldc = ldd where C is D");
  return z;
}

}  // namespace mb
