// SwiGLU of one element: what its kernels and those that quantise its result share.
#pragma once
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {

// Sigmoid: as exact as float32 allows where the result stays float32, the fast exponential where it is rounded to bf16.
template <class T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 4) {
    return 1.0f / (1.0f + expf(-x));
  } else {
    return __fdividef(1.0f, 1.0f + fast_exp(-x));
  }
}

template <class T>
__device__ __forceinline__ float forward_one(float gate, float up) {
  return gate * sigmoid<T>(gate) * up;
}

template <class T>
__device__ __forceinline__ void backward_one(float dout, float& gate, float& up) {
  const float sig = sigmoid<T>(gate), silu = gate * sig;
  const float dgate = dout * up * (sig + silu * (1.0f - sig));
  up = dout * silu;
  gate = dgate;
}

}  // namespace mb::cuda::kernels
