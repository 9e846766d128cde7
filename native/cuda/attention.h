// MB_OP_ATTENTION_FWD and _BWD on one device: cuDNN for bf16 where it applies, else the kernel of our own.
//
// Which one serves is decided once a shape, by attention_workspace or by the first call, and stays.
// MBRIDGE_ATTENTION=mbridge keeps cuDNN out.
#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "../core/abi.h"
#include "attention_graph.h"

namespace mbcuda {

class Attention {
 public:
  Attention() = default;
  ~Attention();
  Attention(const Attention&) = delete;

  int Workspace(cudaStream_t stream, int dtype, const AttentionShape& shape, int64_t* bytes, char kernel[64]);
  int Forward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);
  int Backward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);

 private:
  struct Server {
    std::unique_ptr<CudnnAttention> cudnn;  // null: our own kernel
    int64_t workspace_bytes = 0;
    std::string name;
  };
  using Key = std::tuple<int, int64_t, int64_t, int64_t, int64_t, int64_t, bool>;

  int Find(cudaStream_t stream, int dtype, const AttentionShape& shape, const Server** out);
  // Null with the reason where cuDNN does not serve.
  std::unique_ptr<CudnnAttention> TryCudnn(cudaStream_t stream, const AttentionShape& shape, std::string* reason);
  int Run(bool forward, cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);

  cudnn::Handle handle_ = nullptr;
  std::map<Key, Server> servers_;
  std::map<std::pair<int64_t, bool>, std::string> self_tests_;  // (head size, deterministic) -> what failed, or empty
};

}  // namespace mbcuda
