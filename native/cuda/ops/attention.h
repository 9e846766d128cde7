// MB_OP_ATTENTION_FWD and _BWD on one device: cuDNN for bf16 where it applies (AttentionArgs::is_causal, is_full), else
// the kernel of our own.
//
// Which one serves is decided once a shape, by attention_workspace or by the first call, and stays.
// MBRIDGE_ATTENTION=mbridge keeps cuDNN out.
#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "core/args/attention.h"
#include "cuda/ops/attention_graph.h"

namespace mb::cuda {

class Attention {
 public:
  Attention() = default;
  ~Attention();
  Attention(const Attention&) = delete;

  int workspace(cudaStream_t stream, int dtype, const AttentionSizes& sizes, int64_t offset, bool deterministic,
                int64_t* bytes, char kernel[64]);
  int forward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);
  int backward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);

 private:
  struct Server {
    std::unique_ptr<CudnnAttention> cudnn;  // null: our own kernel
    int64_t passes = 1;                     // over as many parts of the heads
    std::string name;
  };

  const Server& find(cudaStream_t stream, int dtype, const AttentionShape& shape);
  // Null with the reason where cuDNN does not serve.
  std::unique_ptr<CudnnAttention> try_cudnn(cudaStream_t stream, const AttentionShape& shape, std::string* reason);
  // Runs it where cuDNN serves these arguments; *served says whether.
  int run_cudnn(cudaStream_t stream, const AttentionArgs& args, OpArgs& call, int ws, bool* served);

  cudnn::Handle handle_ = nullptr;
  std::map<std::pair<int, AttentionShape>, Server> servers_;  // by dtype and shape
  using SelfTest = std::tuple<int64_t, bool, bool, bool>;  // head size, deterministic, as many keys as queries, causal
  std::map<SelfTest, std::string> self_tests_;             // what failed, or empty
};

}  // namespace mb::cuda
