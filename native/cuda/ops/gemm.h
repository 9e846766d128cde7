// MB_OP_GEMM and MB_OP_GEMM_FP8 on one device through cuBLASLt.
//
// Algorithms come from the library's heuristic, once per distinct product, and stay: with a workspace of its own for
// each stream, the same product on the same device and library gives the same bits. Split sums are only allowed in
// float32 in the workspace, added in a fixed order.
//
// A product in fixed_order is served by what gave the bits of product_in_order in a comparison on its first use, and of
// that by the fastest; products of any number of rows then have the same order.
#pragma once
#include <cuda_runtime_api.h>

#include <unordered_map>

#include "core/abi.h"
#include "core/args/gemm.h"
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
  int run_fp8(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns);

 private:
  // A product as the heuristic sees it; no padding, so that its bytes are its identity.
  struct Key {
    int64_t m, n, k, lda, ldb, ldc, ldd;
    int32_t input, output;  // mb_dtype
    int32_t ta, tb, in_place, has_beta;
    int32_t align_a, align_b, align_c, align_d;  // bytes
    int32_t fixed_order;
    int32_t a_block, b_block;  // rows of a block that has a scale; 0: none
    int32_t unused;
    bool operator==(const Key& other) const;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };
  struct Plan {
    lt::MatmulDesc desc = nullptr;
    lt::MatrixLayout a = nullptr, b = nullptr, c = nullptr, d = nullptr;         // in cuBLAS's order: a is our B
    enum class Server { library, few_rows, in_order } server = Server::library;  // of fixed_order: the fastest
    lt::Algo algo = {};
  };
  struct BlockScales {
    const float* scales;  // null: none
    int rows;             // of a block
  };
  // What a product multiplies and where it goes, and on which stream.
  struct Call {
    int stream;
    cudaStream_t cuda_stream;
    const GemmArgs& args;
    BlockScales a_scales, b_scales;
  };

  int serve(const Call& call);
  int build(const Key& key, const Call& call, Plan* plan);
  int choose(const Key& key, const Call& call, lt::Preference preference, Plan* plan);
  int choose_in_order(const Call& call, const lt::HeuristicResult* results, int found, Plan* plan);
  int set_scales(const Key& key, const Call& call, lt::MatmulDesc desc);
  int point_at_scales(const Call& call, lt::MatmulDesc desc);
  int multiply(const Plan& plan, const Call& call, const void* a);
  void destroy(Plan* plan);

  lt::Handle handle_ = nullptr;
  void* workspace_[8] = {};
  std::unordered_map<Key, Plan, Hash> plans_;
};

}  // namespace mb::cuda
