// Products of our own whose sums have the order of cuBLASLt's kernels that split nothing: 16 elements of k at a time,
// in sequence, in float32 on the tensor cores. On H100 they give those kernels' bits, whatever their tiles.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "core/args/gemm.h"

namespace mb::cuda::kernels {

// D[m,n] = A[m,k] B[n,k]^T in bf16, with leading dimensions in elements.
struct Product {
  const void *a, *b;
  void* d;
  int64_t m, n, k, lda, ldb, ldd;
};

// What a GEMM multiplies, with `a` in place of its A.
inline Product product_of(const GemmArgs& z, const void* a) {
  return {a, z.b, z.d, z.m, z.n, z.k, z.lda, z.ldb, z.ldd};
}

constexpr int64_t kFewRows = 8;

// Whether few_rows takes it: at most kFewRows rows, n and k in whole tiles, rows aligned to 16 bytes.
bool fits_few_rows(const Product& z);

// For rows so few that the time is that of reading B.
int few_rows(cudaStream_t stream, const Product& z);

// Slow, of any size.
int product_in_order(cudaStream_t stream, const Product& z);

// Adds to *differing how many elements of D have other bits than product_in_order would give them, of all rows where
// there are no more than 256, else of as many between the first and the last.
int compare_in_order(cudaStream_t stream, const Product& z, unsigned long long* differing);

// Normal deviates into bf16 [n].
int fill_for_comparison(cudaStream_t stream, void* to, int64_t n, uint32_t seed);

}  // namespace mb::cuda::kernels
