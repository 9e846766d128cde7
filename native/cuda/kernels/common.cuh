// What every kernel file shares: 16-byte accesses, reductions and launch checks.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <float.h>
#include <math.h>
#include <stdint.h>

#include "core/op_args.h"
#include "cuda/kernels/kernels.h"

namespace mb::cuda::kernels {

using bf16 = __nv_bfloat16;

// ---- Host -----------------------------------------------------------------------------------------------------------

// Result of the launches since the last check.
inline int launched(const char* op) {
  const cudaError_t e = cudaGetLastError();
  if (e == cudaSuccess) return MB_OK;
  return fail(MB_ERR_DEVICE, "%s: launch failed: %s (%s)", op, cudaGetErrorString(e), cudaGetErrorName(e));
}

// Lets a kernel have `bytes` of dynamic shared memory a block, and as many blocks a multiprocessor as its shared memory
// holds. A refusal leaves its error behind for the check after the launch.
template <class Kernel>
inline bool allow_shared_memory(Kernel kernel, int bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaSuccess &&
         cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) ==
             cudaSuccess;
}

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Multiprocessors of the current device. Only for the grids of kernels whose result does not depend on the grid.
inline int sm_count() {
  int device = 0, n = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) != cudaSuccess || n < 1)
    return 132;
  return n;
}

// A flat run of n elements as `vectors` groups of `unit` elements, which start at `head` and lie at 16-byte boundaries
// in every operand, and the elements before and after them, which are handled one by one.
struct Span {
  int64_t head, vectors, n;
  int unit;

  __host__ __device__ int64_t singles() const { return n - vectors * unit; }
  // Index of single element k.
  __host__ __device__ int64_t single(int64_t k) const { return k < head ? k : k + vectors * unit; }
};

struct Operand {
  const void* ptr;
  int64_t element;  // bytes
};

template <int COUNT>
inline Span span_of(int64_t n, int unit, const Operand (&operands)[COUNT]) {
  for (int64_t head = 0; head < unit && head < n; ++head) {
    bool fits = true;
    for (const Operand& o : operands) fits = fits && aligned16(static_cast<const char*>(o.ptr) + head * o.element);
    if (fits) return {head, (n - head) / unit, n, unit};
  }
  return {n, 0, n, unit};
}

// Blocks of `threads` with one vector and one single element a thread, at most `limit`; the kernels loop over the rest.
inline unsigned span_grid(const Span& span, int threads, int64_t limit) {
  const int64_t work = span.vectors > span.singles() ? span.vectors : span.singles();
  const int64_t blocks = ceil_div(work, threads);
  return unsigned(blocks < limit ? blocks : limit);
}

// ---- Device: 16-byte accesses --------------------------------------------------------------------------------------

// Elements of T in 16 bytes.
template <class T>
inline constexpr int kVec = 16 / int(sizeof(T));

template <class T>
__device__ __forceinline__ uint4 load16(const T* p) {
  return *reinterpret_cast<const uint4*>(p);
}
// To global memory alone. An intrinsic, because the compiler may split a plain store of a uint4 into four.
template <class T>
__device__ __forceinline__ void store16(T* p, uint4 v) {
  __stwb(reinterpret_cast<uint4*>(p), v);
}
// For data that nothing reads again soon.
template <class T>
__device__ __forceinline__ uint4 load16_once(const T* p) {
  return __ldcs(reinterpret_cast<const uint4*>(p));
}
template <class T>
__device__ __forceinline__ void store16_once(T* p, uint4 v) {
  __stcs(reinterpret_cast<uint4*>(p), v);
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
// e^x with a relative error of about 2^-21 (more where |x| is large), for results that are rounded to bf16.
__device__ __forceinline__ float fast_exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

// e^x as exact as T shows.
template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (sizeof(T) == 4) {
    return expf(x);
  } else {
    return fast_exp(x);
  }
}

// x rounded to T.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

template <class T>
__device__ __forceinline__ void unpack(uint4 raw, float (&f)[kVec<T>]) {
  const uint32_t w[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      f[i] = __uint_as_float(w[i]);
    } else {
      f[2 * i] = __uint_as_float(w[i] << 16);
      f[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 pack(const float (&f)[kVec<T>]) {
  uint32_t w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      w[i] = __float_as_uint(f[i]);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(f[2 * i], f[2 * i + 1]);
      w[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
  return make_uint4(w[0], w[1], w[2], w[3]);
}

// ---- Device: reductions in a fixed order ---------------------------------------------------------------------------

// Sum over groups of `width` neighbouring lanes (a power of two); every lane receives it.
template <class V>
__device__ __forceinline__ V lane_sum(V v, int width = 32) {
  for (int k = width / 2; k > 0; k /= 2) v += __shfl_xor_sync(0xffffffffu, v, k);
  return v;
}

// Sum over a one-dimensional block of whole warps; every thread receives it. `shared` holds 32 values, and may be
// reused only after another barrier.
template <class V>
__device__ __forceinline__ V block_sum(V v, V* shared) {
  v = lane_sum(v);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  V total = 0;
  for (int i = 0; i < int(blockDim.x) / 32; ++i) total += shared[i];
  return total;
}

// Enqueues out[c] = (accumulate ? out[c] : 0) + sum over parts of ws[part * cols + c], for c < split into out0, for the
// other columns into out1. Either may be null: those columns are skipped. Defined in reduce.cu.
void reduce_parts(cudaStream_t stream, const float* ws, int parts, int64_t cols, int64_t split, float* out0,
                  float* out1, bool accumulate);

// Enqueues acc += { sum of rowloss, sum of mask }. Defined in loss.cu.
void add_losses(cudaStream_t stream, const float* rowloss, const float* mask, int64_t rows, float* acc);

}  // namespace mb::cuda::kernels
