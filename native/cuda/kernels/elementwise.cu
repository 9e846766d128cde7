// add, accumulate, cast, copy and fill over flat runs and rectangles.
#include <string.h>

#include <algorithm>

#include "core/args/pointwise.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
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

// A group of 8 elements of a row a thread.
template <class T>
__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(const T* x, float* sum, T* out, int64_t groups, int64_t row_groups, int64_t ldx, int64_t ldout,
                      bool first) {
  constexpr int N = 8;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  for (int64_t g = int64_t(blockIdx.x) * kThreads + threadIdx.x; g < groups; g += stride) {
    const int64_t row = g / row_groups, col = g % row_groups * N;
    T* to = out + row * ldout + col;
    float added[N], total[N];
    load_floats(x + row * ldx + col, added);
    if (first) {
      load_floats(to, total);
    } else {
      load_floats(sum + g * N, total);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) total[e] += added[e];
    store_floats(sum + g * N, total);
    store_floats(to, total);
  }
}

__global__ void __launch_bounds__(kThreads) shift_kernel(const int32_t* in, int32_t* out, int64_t n, int32_t by) {
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) out[i] = in[i] + by;
}

template <class T>
void accumulate(cudaStream_t stream, const AccumulateArgs& z) {
  const int64_t row_groups = z.cols / 8, groups = z.rows * row_groups;
  const int64_t blocks = std::min(ceil_div(groups, kThreads), kMaxBlocks);
  accumulate_kernel<T><<<unsigned(blocks), kThreads, 0, stream>>>(
      static_cast<const T*>(z.x), z.sum, static_cast<T*>(z.out), groups, row_groups, z.ldx, z.ldout, z.first);
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

int op_add(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ADD], t, nt, s, ns);
  const AddArgs z = read_add(a);
  if (!a.ok() || z.n == 0) return a.status();
  if (z.dtype == MB_F32) {
    add<float>(stream, z.a, z.b, z.out, z.n);
  } else {
    add<bf16>(stream, z.a, z.b, z.out, z.n);
  }
  return launched("add");
}

int op_accumulate(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ACCUMULATE], t, nt, s, ns);
  const AccumulateArgs z = read_accumulate(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    accumulate<float>(stream, z);
  } else {
    accumulate<bf16>(stream, z);
  }
  return launched("accumulate");
}

int op_cast(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_CAST], t, nt, s, ns);
  const CastArgs z = read_cast(a);
  if (!a.ok() || z.n == 0 || z.in == z.out) return a.status();
  if (z.from == z.to) {
    const size_t bytes = size_t(z.n * dtype_size(z.to));
    const cudaError_t e = cudaMemcpyAsync(z.out, z.in, bytes, cudaMemcpyDeviceToDevice, stream);
    return e == cudaSuccess ? MB_OK : fail(MB_ERR_DEVICE, "cast: copy failed: %s", cudaGetErrorString(e));
  }
  if (z.from == MB_F32) {
    cast<float, bf16>(stream, z.in, z.out, z.n);
  } else {
    cast<bf16, float>(stream, z.in, z.out, z.n);
  }
  return launched("cast");
}

int op_copy_2d(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_COPY_2D], t, nt, s, ns);
  const Copy2dArgs z = read_copy_2d(a);
  constexpr int64_t kMostStride = INT32_MAX;  // of a strided copy in CUDA
  a.require(z.rows < 2 || (z.src_stride <= kMostStride && z.dst_stride <= kMostStride), "strides below 2^31 bytes");
  if (!a.ok() || z.rows == 0 || z.row_bytes == 0) return a.status();
  const auto stride = [&](int64_t bytes) { return size_t(z.rows > 1 ? bytes : z.row_bytes); };
  const cudaError_t e = cudaMemcpy2DAsync(z.dst, stride(z.dst_stride), z.src, stride(z.src_stride), size_t(z.row_bytes),
                                          size_t(z.rows), cudaMemcpyDeviceToDevice, stream);
  return e == cudaSuccess ? MB_OK : fail(MB_ERR_DEVICE, "copy_2d: copy failed: %s", cudaGetErrorString(e));
}

int op_shift(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SHIFT], t, nt, s, ns);
  const ShiftArgs z = read_shift(a);
  if (!a.ok() || z.n == 0) return a.status();
  const int64_t blocks = std::min(ceil_div(z.n, kThreads), kMaxBlocks);
  shift_kernel<<<unsigned(blocks), kThreads, 0, stream>>>(z.in, z.out, z.n, z.by);
  return launched("shift");
}

int op_fill(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_FILL], t, nt, s, ns);
  const FillArgs z = read_fill(a);
  if (!a.ok() || z.n == 0) return a.status();
  const int64_t element = dtype_size(z.dtype);
  const bool integer = z.dtype == MB_I32 || z.dtype == MB_U8;
  unsigned char bytes[16];
  for (int64_t at = 0; at < 16; at += element) {
    const float as_f32 = float(z.value);
    const bf16 as_bf16 = __float2bfloat16_rn(as_f32);
    const int32_t as_i32 = integer ? int32_t(z.value) : 0;
    const unsigned char as_u8 = integer ? (unsigned char)(as_i32) : 0;
    const void* source = z.dtype == MB_F32    ? static_cast<const void*>(&as_f32)
                         : z.dtype == MB_BF16 ? static_cast<const void*>(&as_bf16)
                         : z.dtype == MB_F64  ? static_cast<const void*>(&z.value)
                         : z.dtype == MB_I32  ? static_cast<const void*>(&as_i32)
                                              : static_cast<const void*>(&as_u8);
    memcpy(bytes + at, source, size_t(element));
  }
  uint4 pattern;
  memcpy(&pattern, bytes, 16);
  const Span span = span_of(z.n * element, 16, {{z.out, 1}});
  fill_kernel<<<span_grid(span, kThreads, kMaxBlocks), kThreads, 0, stream>>>(static_cast<unsigned char*>(z.out),
                                                                              pattern, int(element), span);
  return launched("fill");
}

}  // namespace mb::cuda::kernels
