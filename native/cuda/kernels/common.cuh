// What every kernel file shares: argument checks, 16-byte accesses, reductions and launch checks.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include "../../core/dtype.h"
#include "kernels.h"

namespace mbk {

using bf16 = __nv_bfloat16;

// ---- Host: checking the arguments of an op -------------------------------------------------------------------------

// Product of sizes, saturating far above any memory so that the bytes check refuses what would overflow.
inline int64_t times(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_mul_overflow(a, b, &r) || r > (INT64_MAX >> 4) ? INT64_MAX >> 4 : r;
}

// Reads and checks the tensors and scalars of one call. The first failure is kept in `status`, with its text set;
// later reads return harmless values, so that an op reads everything and tests `status` once.
class Args {
 public:
  int status = MB_OK;

  Args(const char* op, const mb_buf* t, int nt, int want_nt, const double* s, int ns, int want_ns)
      : op_(op), t_(t), s_(s) {
    if (nt != want_nt || ns != want_ns) {
      fail("takes %d tensors and %d scalars, got %d and %d", want_nt, want_ns, nt, ns);
      counted_ = false;
    }
  }

  // A size: an integer in [lo, hi].
  int64_t size(int i, const char* name, int64_t lo = 0, int64_t hi = int64_t(1) << 53) {
    if (!counted_) return lo;
    const double v = s_[i];
    if (!(v >= double(lo) && v <= double(hi)) || v != double(int64_t(v))) {
      fail("%s is %g, expected an integer from %lld to %lld", name, v, (long long)lo, (long long)hi);
      return lo;
    }
    return int64_t(v);
  }

  double number(int i, const char* name) {
    if (!counted_) return 0.0;
    if (!isfinite(s_[i])) fail("%s is %g, expected a finite number", name, s_[i]);
    return s_[i];
  }

  // A number that may be infinite or NaN.
  double value(int i) const { return counted_ ? s_[i] : 0.0; }

  bool flag(int i, const char* name) {
    if (counted_ && s_[i] != 0.0 && s_[i] != 1.0) fail("%s is %g, expected 0 or 1", name, s_[i]);
    return counted_ && s_[i] != 0.0;
  }

  bool present(int i) const { return counted_ && t_[i].ptr != nullptr; }

  // The dtype of tensor i, which must be f32 or bf16.
  int act(int i, const char* name) {
    if (!counted_) return MB_F32;
    const int dtype = t_[i].dtype;
    if (dtype != MB_F32 && dtype != MB_BF16) fail("%s has dtype %d, expected f32 or bf16", name, dtype);
    return dtype;
  }

  // Tensor i as at least `count` elements of `dtype`; null only when count is 0.
  void* tensor(int i, const char* name, int dtype, int64_t count) {
    if (!counted_) return nullptr;
    const mb_buf& b = t_[i];
    const int64_t size = mb::dtype_size(dtype);
    if (b.ptr == nullptr) {
      if (count > 0) fail("%s is absent", name);
    } else if (b.dtype != dtype) {
      fail("%s has dtype %d, expected %d", name, b.dtype, dtype);
    } else if (b.bytes / size < count) {
      fail("%s has %lld bytes, needs %lld elements of %lld", name, (long long)b.bytes, (long long)count,
           (long long)size);
    } else if (reinterpret_cast<uintptr_t>(b.ptr) % uintptr_t(size) != 0) {
      fail("%s is not aligned to %lld bytes", name, (long long)size);
    }
    return b.ptr;
  }

  // The same, and aligned for 16-byte accesses.
  void* tensor16(int i, const char* name, int dtype, int64_t count) {
    void* p = tensor(i, name, dtype, count);
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) fail("%s is not aligned to 16 bytes", name);
    return p;
  }

  float* f32(int i, const char* name, int64_t n) { return static_cast<float*>(tensor(i, name, MB_F32, n)); }
  int32_t* i32(int i, const char* name, int64_t n) { return static_cast<int32_t*>(tensor(i, name, MB_I32, n)); }

  // Scratch of any dtype, at least `bytes` long and aligned for 16-byte accesses.
  void* scratch(int i, const char* name, int64_t bytes) {
    if (!counted_) return nullptr;
    const mb_buf& b = t_[i];
    if (bytes > 0 && b.ptr == nullptr) {
      fail("%s is absent", name);
    } else if (bytes > b.bytes) {
      fail("%s has %lld bytes, needs %lld", name, (long long)b.bytes, (long long)bytes);
    } else if (reinterpret_cast<uintptr_t>(b.ptr) % 16 != 0) {
      fail("%s is not aligned to 16 bytes", name);
    }
    return b.ptr;
  }

  // Tensors whose memory must not overlap, because the kernel reads one while it writes the other.
  void distinct(int i, const char* a, int j, const char* b) {
    if (!counted_ || t_[i].ptr == nullptr || t_[j].ptr == nullptr) return;
    const char* p = static_cast<const char*>(t_[i].ptr);
    const char* q = static_cast<const char*>(t_[j].ptr);
    if (p < q + t_[j].bytes && q < p + t_[i].bytes) fail("%s and %s overlap", a, b);
  }

  // Tensors that may be the same memory, but not overlap otherwise.
  void same_or_distinct(int i, const char* a, int j, const char* b) {
    if (counted_ && t_[i].ptr != t_[j].ptr) distinct(i, a, j, b);
  }

  void fail(const char* fmt, ...) __attribute__((format(printf, 2, 3))) {
    if (status != MB_OK) return;
    char text[256];
    va_list list;
    va_start(list, fmt);
    vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    status = MB_ERR_ARGUMENT;
    mb_cuda_set_error("%s: %s", op_, text);
  }

 private:
  const char* op_;
  const mb_buf* t_;
  const double* s_;
  bool counted_ = true;
};

// Result of the launches since the last check.
inline int launched(const char* op) {
  const cudaError_t e = cudaGetLastError();
  if (e == cudaSuccess) return MB_OK;
  mb_cuda_set_error("%s: launch failed: %s (%s)", op, cudaGetErrorString(e), cudaGetErrorName(e));
  return MB_ERR_DEVICE;
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

}  // namespace mbk
