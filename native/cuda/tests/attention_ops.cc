// Builds and executes the attention graphs against the stand-in for cuDNN, which prints them.
//   mbridge_attention_ops b sq skv hq hkv d causal deterministic    (MBRIDGE_CUDA_LIBS: the folder of the stand-in)
#include <stdio.h>
#include <stdlib.h>

#include "cuda/libs/libs.h"
#include "cuda/ops/attention_graph.h"

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  const auto number = [&](int i) { return static_cast<int64_t>(atoll(argv[i])); };
  const int64_t skv = number(3), hq = number(4), hkv = number(5), d = number(6);
  const int64_t all = (hq + 2 * hkv) * d, q = hq * d;
  // q, k and v are columns of one matrix; the keys of a sequence are all that it has room for.
  mb::cuda::AttentionShape shape = {
      number(1), number(2), skv, hq, hkv, d, all, all, all, q, 0, 0, 0, skv, hq, number(7) != 0, false, number(8) != 0};
  const mb::cuda::Cudnn& lib = mb::cuda::load_cudnn();
  if (!lib.loaded) {
    fprintf(stderr, "%s\n", lib.reason.c_str());
    return 1;
  }
  mb::cuda::cudnn::Handle handle = nullptr;
  lib.Create(&handle);
  const auto address = [](int64_t value) { return reinterpret_cast<void*>(value); };
  const int64_t k = q * 2, v = (hq + hkv) * d * 2;
  const mb::cuda::AttentionBuffers buffers = {
      address(0x1000),  address(0x1000 + k), address(0x1000 + v),  address(0x20000),     address(0x30000),
      address(0x40000), address(0x50000),    address(0x50000 + k), address(0x50000 + v), address(0x60000)};
  mb::cuda::CudnnAttention(handle, shape).run(handle, buffers, 0.25f);
  shape.backward = true;
  shape.lddq = shape.lddk = shape.lddv = all;
  const mb::cuda::CudnnAttention backward(handle, shape);
  backward.run(handle, buffers, 0.25f);
  printf("workspace %lld\n", static_cast<long long>(backward.workspace_bytes()));
}
