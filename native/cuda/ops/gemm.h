// MB_OP_GEMM on one device through cuBLASLt.
//
// Algorithms come from the library's heuristic, once per distinct product, and stay: with a workspace of its own for
// each stream, the same product on the same device and library gives the same bits. Split sums are only allowed in
// float32 in the workspace, added in a fixed order.
#pragma once
#include <cuda_runtime_api.h>

#include <unordered_map>

#include "core/abi.h"
#include "cuda/libs/abi_cublaslt.h"

namespace mb::cuda {

class Gemm {
 public:
  static constexpr size_t kWorkspaceBytes = 64 << 20;  // a stream

  Gemm() = default;
  ~Gemm();
  Gemm(const Gemm&) = delete;

  // Takes the handle and the workspace of a stream now rather than at its first product.
  int prepare(int stream);
  int run(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns);

 private:
  // A product as the heuristic sees it; no padding, so that its bytes are its identity.
  struct Key {
    int64_t m, n, k, lda, ldb, ldc, ldd;
    int32_t input, output;  // mb_dtype
    int32_t ta, tb, in_place, has_beta;
    int32_t align_a, align_b, align_c, align_d;  // bytes
    bool operator==(const Key& other) const;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };
  struct Plan {
    lt::MatmulDesc desc = nullptr;
    lt::MatrixLayout a = nullptr, b = nullptr, c = nullptr, d = nullptr;  // in cuBLAS's order: a is our B
    lt::Algo algo = {};
  };

  int build(const Key& key, Plan* plan);
  int choose(const Key& key, lt::Preference preference, Plan* plan);
  void destroy(Plan* plan);

  lt::Handle handle_ = nullptr;
  void* workspace_[8] = {};
  std::unordered_map<Key, Plan, Hash> plans_;
};

}  // namespace mb::cuda
