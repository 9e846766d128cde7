// The divergence of a student's distribution from a teacher's: over k tokens, and over the vocabulary.
#include "core/args/distill.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 512;

// Calls body(x, y) for the logits of a row and a teacher's (0 without one), and stores what it returns where
// Body::kStores.
template <class T, bool VECTOR, class Body>
__device__ __forceinline__ void for_pairs(T* row, const T* teacher, int64_t v, Body& body) {
  if constexpr (VECTOR) {
    constexpr int N = kVec<T>;
#pragma unroll 2
    for (int64_t i = threadIdx.x; i < v / N; i += kThreads) {
      float x[N], y[N] = {};
      unpack<T>(load16(row + i * N), x);
      if (teacher != nullptr) unpack<T>(load16(teacher + i * N), y);
#pragma unroll
      for (int e = 0; e < N; ++e) x[e] = body(x[e], y[e]);
      if constexpr (Body::kStores) store16(row + i * N, pack<T>(x));
    }
  } else {
    for (int64_t i = threadIdx.x; i < v; i += kThreads) {
      const float result = body(to_float(row[i]), teacher == nullptr ? 0.0f : to_float(teacher[i]));
      if constexpr (Body::kStores) row[i] = from_float<T>(result);
    }
  }
}

template <class T>
struct Sums {
  static constexpr bool kStores = false;
  float xmax, ymax, inverse;
  bool pair;
  double student, teacher, cross;

  __device__ __forceinline__ float operator()(float x, float y) {
    const float dx = (x - xmax) * inverse;
    student += double(exponential<T>(dx));
    if (pair) {
      const float dy = (y - ymax) * inverse, e = exponential<T>(dy);
      teacher += double(e);
      if (!(e == 0)) cross += double(e * (dy - dx));  // 0 of a teacher's -inf, NaN of a NaN
    }
    return x;
  }
};

template <class T>
struct Gradient {
  static constexpr bool kStores = true;
  float xmax, ymax, inverse, student, teacher;

  __device__ __forceinline__ float operator()(float x, float y) {
    float g = student == 0 ? 0.0f : exponential<T>((x - xmax) * inverse) * student;
    if (teacher != 0) g -= exponential<T>((y - ymax) * inverse) * teacher;
    return g;
  }
};

// One row a block.
template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads) soft_sums_kernel(KlArgs z) {
  __shared__ double shared[3][32];
  const int64_t r = blockIdx.x;
  const bool pair = z.teacher != nullptr;
  Sums<T> body{z.gmax[r], pair ? z.tmax[r] : 0.0f, float(1 / z.temperature), pair, 0, 0, 0};
  const T* teacher = pair ? static_cast<const T*>(z.teacher) + r * z.cols : nullptr;
  for_pairs<T, VECTOR>(static_cast<T*>(z.logits) + r * z.cols, teacher, z.cols, body);
  const double student = block_sum(body.student, shared[0]);
  const double other = block_sum(body.teacher, shared[1]), cross = block_sum(body.cross, shared[2]);
  if (threadIdx.x != 0) return;
  z.sums_out[r] = float(student);
  if (!pair) return;
  z.sums_out[z.rows + r] = float(other);
  z.sums_out[2 * z.rows + r] = float(cross);
}

template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads) soft_kl_kernel(KlArgs z) {
  const int64_t r = blockIdx.x;
  const double mask = double(z.mask[r]), factor = mask * z.temperature;
  const double student = double(z.sums[r]), teacher = double(z.sums[z.rows + r]);
  if (threadIdx.x == 0) {
    const double kl = double(z.sums[2 * z.rows + r]) / teacher + log(student / teacher);
    z.rowloss[r] = mask == 0 ? 0.0f : float(kl * factor * z.temperature);
  }
  Gradient<T> body{z.gmax[r], z.tmax[r], float(1 / z.temperature), 0, 0};
  if (mask != 0) {
    body.student = float(factor / student);
    body.teacher = float(factor / teacher);
  }
  const int64_t at = r * z.cols;
  for_pairs<T, VECTOR>(static_cast<T*>(z.logits) + at, static_cast<const T*>(z.teacher) + at, z.cols, body);
}

// The largest over a block of whole warps; every thread receives it. `shared` holds 32 values, and may be reused only
// after another barrier.
__device__ __forceinline__ double block_max(double v, double* shared) {
  for (int k = 16; k > 0; k /= 2) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, k));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  for (int i = 0; i < int(blockDim.x) / 32; ++i) v = fmax(v, shared[i]);
  return v;
}

// log of the sum of exp(scale * x), over k entries.
__device__ double log_sum(const float* x, int64_t k, double scale, double (*shared)[32]) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) most = fmax(most, scale * double(x[i]));
  most = block_max(most, shared[0]);
  for (int64_t i = threadIdx.x; i < k; i += kThreads) sum += exp(scale * double(x[i]) - most);
  return most + log(block_sum(sum, shared[1]));
}

template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads) top_k_kl_kernel(KlArgs z) {
  __shared__ double shared[6][32];
  const int64_t r = blockIdx.x;
  T* row = static_cast<T*>(z.logits) + r * z.cols;
  const double mask = double(z.mask[r]), factor = mask * z.temperature, inverse = 1 / z.temperature;
  Gradient<T> body{z.gmax[r], 0, float(inverse), 0, 0};
  if (mask == 0) {
    if (threadIdx.x == 0) z.rowloss[r] = 0;
    for_pairs<T, VECTOR>(row, static_cast<const T*>(nullptr), z.cols, body);
    return;
  }
  const float *teacher = z.teacher_logprobs + r * z.k, *student = z.student + r * z.k;
  const bool whole = z.sums != nullptr;
  const double teacher_shift = whole ? 0 : log_sum(teacher, z.k, 1, shared);
  const double student_shift =
      whole ? log(double(z.sums[r])) + double(z.gmax[r]) * inverse : log_sum(student, z.k, inverse, shared + 2);
  double loss = 0, mass = 0;
  for (int64_t i = threadIdx.x; i < z.k; i += kThreads) {
    const double log_p = double(teacher[i]) - teacher_shift, p = exp(log_p);
    mass += p;
    if (p > 0) loss += p * (log_p - (double(student[i]) * inverse - student_shift));
  }
  loss = block_sum(loss, shared[4]);
  mass = whole ? block_sum(mass, shared[5]) : 1.0;
  if (threadIdx.x == 0) z.rowloss[r] = float(loss * factor * z.temperature);
  if (whole) body.student = float(factor * mass / double(z.sums[r]));
  for_pairs<T, VECTOR>(row, static_cast<const T*>(nullptr), z.cols, body);
  __syncthreads();  // what follows writes over it
  for (int64_t i = threadIdx.x; i < z.k; i += kThreads) {
    const int64_t at = z.ids[r * z.k + i] - z.vstart;
    if (at < 0 || at >= z.cols) continue;
    const double p = exp(double(teacher[i]) - teacher_shift);
    const double q = exp(double(student[i]) * inverse - student_shift);
    row[at] = from_float<T>(float(factor * (mass * q - p)));
  }
}

// Runs a kernel of one row a block: of vectors where rows, and those of a teacher, begin at 16 bytes.
#define MB_FOR_ROWS(kernel, T)                                                  \
  do {                                                                          \
    if (z.cols % kVec<T> == 0 && aligned16(z.logits) && aligned16(z.teacher)) { \
      kernel<T, true><<<unsigned(z.rows), kThreads, 0, stream>>>(z);            \
    } else {                                                                    \
      kernel<T, false><<<unsigned(z.rows), kThreads, 0, stream>>>(z);           \
    }                                                                           \
  } while (false)

#define MB_FOR_TYPES(kernel)      \
  do {                            \
    if (z.dtype == MB_F32) {      \
      MB_FOR_ROWS(kernel, float); \
    } else {                      \
      MB_FOR_ROWS(kernel, bf16);  \
    }                             \
  } while (false)

}  // namespace

int op_soft_sums(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SOFT_SUMS], t, nt, s, ns);
  const KlArgs z = read_soft_sums(a);
  if (!a.ok() || z.rows == 0) return a.status();
  MB_FOR_TYPES(soft_sums_kernel);
  return launched("soft_sums");
}

int op_top_k_kl(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOP_K_KL], t, nt, s, ns);
  const KlArgs z = read_top_k_kl(a);
  if (!a.ok() || z.rows == 0) return a.status();
  MB_FOR_TYPES(top_k_kl_kernel);
  add_losses(stream, z.rowloss, z.mask, z.rows, z.acc);
  return launched("top_k_kl");
}

int op_soft_kl(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SOFT_KL], t, nt, s, ns);
  const KlArgs z = read_soft_kl(a);
  if (!a.ok() || z.rows == 0) return a.status();
  MB_FOR_TYPES(soft_kl_kernel);
  add_losses(stream, z.rowloss, z.mask, z.rows, z.acc);
  return launched("soft_kl");
}

}  // namespace mb::cuda::kernels
