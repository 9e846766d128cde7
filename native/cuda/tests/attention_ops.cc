// Builds and executes the attention graphs against the stand-in for cuDNN, which prints them.
//   mbridge_attention_ops b s hq hkv d deterministic    (MBRIDGE_CUDA_LIBS: the folder of the stand-in)
#include <stdio.h>
#include <stdlib.h>

#include "cuda/libs/libs.h"
#include "cuda/ops/attention_graph.h"

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const mb::cuda::AttentionShape shape = {atoll(argv[1]), atoll(argv[2]), atoll(argv[3]),
                                          atoll(argv[4]), atoll(argv[5]), atoi(argv[6]) != 0};
  const mb::cuda::Cudnn& lib = mb::cuda::load_cudnn();
  if (!lib.loaded) {
    fprintf(stderr, "%s\n", lib.reason.c_str());
    return 1;
  }
  mb::cuda::cudnn::Handle handle = nullptr;
  lib.Create(&handle);
  const mb::cuda::CudnnAttention attention(handle, shape);
  auto address = [](int64_t value) { return reinterpret_cast<void*>(value); };
  mb::cuda::AttentionBuffers buffers;
  buffers.qkv = address(0x1000);
  buffers.o = address(0x20000);
  buffers.lse = address(0x30000);
  buffers.dout = address(0x40000);
  buffers.dqkv = address(0x50000);
  buffers.workspace = address(0x60000);
  attention.forward(handle, buffers, 0.25f);
  attention.backward(handle, buffers, 0.25f);
  printf("workspace %lld\n", static_cast<long long>(attention.workspace_bytes()));
}
