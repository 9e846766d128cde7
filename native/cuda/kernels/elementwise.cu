// add, cast, fill and scale over flat runs.
#include <string.h>

#include "common.cuh"

namespace mbk {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t(1) << 20;

template <class T>
__global__ void __launch_bounds__(kThreads) add_kernel(const T* a, const T* b, T* out, Span span) {
  constexpr int N = kVec<T>;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < span.vectors; i += stride) {
    const int64_t at = span.head + i * N;
    float x[N], y[N];
    unpack<T>(load16(a + at), x);
    unpack<T>(load16(b + at), y);
#pragma unroll
    for (int e = 0; e < N; ++e) x[e] += y[e];
    store16(out + at, pack<T>(x));
  }
  for (int64_t k = first; k < span.singles(); k += stride) {
    const int64_t i = span.single(k);
    out[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
  }
}

// Loads N neighbouring elements as float32, in 16-byte accesses. N is a multiple of the elements in 16 bytes.
template <class T, int N>
__device__ __forceinline__ void load_floats(const T* p, float (&f)[N]) {
  constexpr int K = kVec<T>;
#pragma unroll
  for (int i = 0; i < N / K; ++i) {
    float part[K];
    unpack<T>(load16_once(p + i * K), part);
#pragma unroll
    for (int e = 0; e < K; ++e) f[i * K + e] = part[e];
  }
}

template <class T, int N>
__device__ __forceinline__ void store_floats(T* p, const float (&f)[N]) {
  constexpr int K = kVec<T>;
#pragma unroll
  for (int i = 0; i < N / K; ++i) {
    float part[K];
#pragma unroll
    for (int e = 0; e < K; ++e) part[e] = f[i * K + e];
    store16(p + i * K, pack<T>(part));
  }
}

template <class A, class B>
__global__ void __launch_bounds__(kThreads) cast_kernel(const A* in, B* out, Span span) {
  constexpr int N = 8;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < span.vectors; i += stride) {
    float f[N];
    load_floats(in + span.head + i * N, f);
    store_floats(out + span.head + i * N, f);
  }
  for (int64_t k = first; k < span.singles(); k += stride) {
    const int64_t i = span.single(k);
    out[i] = from_float<B>(to_float(in[i]));
  }
}

// A 16-byte pattern over bytes; its period divides the element size, so any element boundary may start it.
__global__ void __launch_bounds__(kThreads) fill_kernel(unsigned char* out, uint4 pattern, int element, Span span) {
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < span.vectors; i += stride) store16(out + span.head + i * 16, pattern);
  const uint32_t words[2] = {pattern.x, pattern.y};
  for (int64_t k = first; k < span.singles(); k += stride) {
    const int64_t i = span.single(k);
    const int byte = int(i % element);
    out[i] = (unsigned char)((byte < 4 ? words[0] : words[1]) >> (byte % 4 * 8));
  }
}

__global__ void __launch_bounds__(kThreads) scale_kernel(float* x, float alpha, Span span) {
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < span.vectors; i += stride) {
    float f[4];
    unpack<float>(load16(x + span.head + i * 4), f);
#pragma unroll
    for (int e = 0; e < 4; ++e) f[e] *= alpha;
    store16(x + span.head + i * 4, pack<float>(f));
  }
  for (int64_t k = first; k < span.singles(); k += stride) x[span.single(k)] *= alpha;
}

template <class T>
void add(cudaStream_t stream, const void* a, const void* b, void* out, int64_t n) {
  const Span span = span_of(n, kVec<T>, {{a, sizeof(T)}, {b, sizeof(T)}, {out, sizeof(T)}});
  add_kernel<T><<<span_grid(span, kThreads, kMaxBlocks), kThreads, 0, stream>>>(
      static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(out), span);
}

template <class A, class B>
void cast(cudaStream_t stream, const void* in, void* out, int64_t n) {
  const Span span = span_of(n, 8, {{in, sizeof(A)}, {out, sizeof(B)}});
  cast_kernel<A, B><<<span_grid(span, kThreads, kMaxBlocks), kThreads, 0, stream>>>(static_cast<const A*>(in),
                                                                                    static_cast<B*>(out), span);
}

}  // namespace
}  // namespace mbk

using namespace mbk;

int mbk_add(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("add", t, nt, 3, s, ns, 1);
  const int64_t n = a.size(0, "n");
  const int dtype = a.act(0, "a");
  const void* x = a.tensor(0, "a", dtype, n);
  const void* y = a.tensor(1, "b", dtype, n);
  void* out = a.tensor(2, "out", dtype, n);
  a.same_or_distinct(0, "a", 2, "out");
  a.same_or_distinct(1, "b", 2, "out");
  if (a.status != MB_OK || n == 0) return a.status;
  if (dtype == MB_F32) {
    add<float>(stream, x, y, out, n);
  } else {
    add<bf16>(stream, x, y, out, n);
  }
  return launched("add");
}

int mbk_cast(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("cast", t, nt, 2, s, ns, 1);
  const int64_t n = a.size(0, "n");
  const int from = a.act(0, "in"), to = a.act(1, "out");
  const void* in = a.tensor(0, "in", from, n);
  void* out = a.tensor(1, "out", to, n);
  if (from == to) {
    a.same_or_distinct(0, "in", 1, "out");
  } else {
    a.distinct(0, "in", 1, "out");
  }
  if (a.status != MB_OK || n == 0 || in == out) return a.status;
  if (from == to) {
    const cudaError_t e = cudaMemcpyAsync(out, in, size_t(n * mb::dtype_size(to)), cudaMemcpyDeviceToDevice, stream);
    if (e == cudaSuccess) return MB_OK;
    mb_cuda_set_error("cast: copy failed: %s", cudaGetErrorString(e));
    return MB_ERR_DEVICE;
  }
  if (from == MB_F32) {
    cast<float, bf16>(stream, in, out, n);
  } else {
    cast<bf16, float>(stream, in, out, n);
  }
  return launched("cast");
}

int mbk_fill(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("fill", t, nt, 1, s, ns, 2);
  const int64_t n = a.size(0, "n");
  const double value = a.value(1);
  const int dtype = nt == 1 ? t[0].dtype : MB_U8;
  const int64_t element = mb::dtype_size(dtype);
  if (element == 0) a.fail("out has unknown dtype %d", dtype);
  const bool integer = dtype == MB_I32 || dtype == MB_U8;
  const double lo = dtype == MB_I32 ? -2147483648.0 : 0.0, hi = dtype == MB_I32 ? 2147483647.0 : 255.0;
  if (integer && !(value >= lo && value <= hi && value == double(int64_t(value))))
    a.fail("value is %g, which dtype %d cannot hold", value, dtype);
  if (a.status != MB_OK) return a.status;
  void* out = a.tensor(0, "out", dtype, n);
  if (a.status != MB_OK || n == 0) return a.status;

  unsigned char bytes[16];
  for (int64_t at = 0; at < 16; at += element) {
    const float as_f32 = float(value);
    const bf16 as_bf16 = __float2bfloat16_rn(as_f32);
    const int32_t as_i32 = integer ? int32_t(value) : 0;
    const unsigned char as_u8 = integer ? (unsigned char)(as_i32) : 0;
    const void* source = dtype == MB_F32    ? static_cast<const void*>(&as_f32)
                         : dtype == MB_BF16 ? static_cast<const void*>(&as_bf16)
                         : dtype == MB_F64  ? static_cast<const void*>(&value)
                         : dtype == MB_I32  ? static_cast<const void*>(&as_i32)
                                            : static_cast<const void*>(&as_u8);
    memcpy(bytes + at, source, size_t(element));
  }
  uint4 pattern;
  memcpy(&pattern, bytes, 16);
  const Span span = span_of(n * element, 16, {{out, 1}});
  fill_kernel<<<span_grid(span, kThreads, kMaxBlocks), kThreads, 0, stream>>>(static_cast<unsigned char*>(out), pattern,
                                                                              int(element), span);
  return launched("fill");
}

int mbk_scale(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("scale", t, nt, 1, s, ns, 2);
  const int64_t n = a.size(0, "n");
  const float alpha = float(a.number(1, "alpha"));
  float* x = a.f32(0, "x", n);
  if (a.status != MB_OK || n == 0) return a.status;
  const Span span = span_of(n, 4, {{x, 4}});
  scale_kernel<<<span_grid(span, kThreads, kMaxBlocks), kThreads, 0, stream>>>(x, alpha, span);
  return launched("scale");
}
