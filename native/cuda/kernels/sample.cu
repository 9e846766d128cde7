// Choosing tokens: the best score of each row, and what top-k and top-p leave of it. Counts and probabilities are
// integers, so that the order in which threads add them does not matter.
#include "core/args/decode.h"
#include "core/sampling.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kFloorThreads = 1024;

struct Best {
  float score;
  int token;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  return b.score > a.score || (b.score == a.score && b.token < a.token) ? b : a;
}

// Block (part, row) of a vocabulary shard.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const T* logits, const int32_t* row_ids, const int32_t* positions, const float* floor, float* out,
                  int rows, int cols, int vstart, double temperature, uint32_t seed_lo, uint32_t seed_hi) {
  __shared__ Best shared[kThreads / 32];
  const int part = blockIdx.x, t = blockIdx.y;
  const int begin = int(shard_start(cols, part, MB_SAMPLE_PARTS)),
            end = int(shard_start(cols, part + 1, MB_SAMPLE_PARTS));
  const T* x = logits + int64_t(t) * cols;
  const float least = floor == nullptr ? -INFINITY : floor[t];
  Best best{-INFINITY, vstart + begin};
  // Four tokens share a block of random words.
  const int first = (vstart + begin) / 4, last = (vstart + end + 3) / 4;
  for (int group = first + int(threadIdx.x); group < last; group += kThreads) {
    PhiloxWords words{};
    if (temperature > 0) words = sample_words(uint32_t(group), positions[t], row_ids[t], seed_lo, seed_hi);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = 4 * group + i, at = token - vstart;
      if (at < begin || at >= end) continue;
      const float logit = to_float(x[at]);
      if (!(logit >= least)) continue;
      const double scaled = double(logit) / (temperature > 0 ? temperature : 1.0);
      const float score = temperature > 0 ? float(scaled + gumbel(words.w[i])) : logit;
      if (score > best.score) best = {score, token};
    }
  }
  for (int k = 16; k > 0; k /= 2) {
    best = better(best, {__shfl_xor_sync(0xffffffffu, best.score, k), __shfl_xor_sync(0xffffffffu, best.token, k)});
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / 32; ++i) best = better(best, shared[i]);
  float* to = out + 2 * (int64_t(part) * rows + t);
  to[0] = best.score;
  to[1] = float(best.token);
}

__global__ void sample_pick_kernel(const float* scores, int32_t* tokens, int parts, int rows) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows) return;
  Best best{scores[2 * row], int(scores[2 * row + 1])};
  for (int part = 1; part < parts; ++part) {
    const float* other = scores + 2 * (int64_t(part) * rows + row);
    best = better(best, {other[0], int(other[1])});
  }
  tokens[row] = best.token;
}

using Units = unsigned long long;

struct FloorShape {
  int shards, rows, vocab, room;
};

// Calls body(order, logit) for the logits of row t that fall to this thread.
template <class T, class Body>
__device__ void each_logit(const T* logits, const FloorShape& z, int t, const Body& body) {
  for (int s = 0; s < z.shards; ++s) {
    const int count = int(shard_start(z.vocab, s + 1, z.shards) - shard_start(z.vocab, s, z.shards));
    const T* x = logits + int64_t(s) * z.rows * z.room + int64_t(t) * count;
    for (int i = int(threadIdx.x); i < count; i += kFloorThreads) {
      const float logit = to_float(x[i]);
      body(float_order(logit), logit);
    }
  }
}

// The highest order such that what weighs at least `target` lies at or above it. All threads get it.
template <class T, class Weight>
__device__ uint32_t select(const T* logits, const FloorShape& z, int t, Units target, const Weight& weight) {
  __shared__ Units sums[256];
  __shared__ uint32_t chosen;
  __shared__ Units left;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) sums[threadIdx.x] = 0;
    __syncthreads();
    each_logit(logits, z, t, [&](uint32_t order, float logit) {
      if (shift != 24 && order >> (shift + 8) != prefix >> (shift + 8)) return;
      const Units units = weight(order, logit);
      if (units > 0) atomicAdd(&sums[order >> shift & 255], units);
    });
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t byte = 255;
      for (; byte > 0 && sums[byte] < target; --byte) target -= sums[byte];
      chosen = byte;
      left = target;
    }
    __syncthreads();
    prefix |= chosen << shift;
    target = left;
  }
  return prefix;
}

template <class T>
__global__ void __launch_bounds__(kFloorThreads)
    sample_floor_kernel(const T* logits, float* floor, FloorShape z, double temperature, int top_k, double top_p) {
  __shared__ uint32_t highest;
  __shared__ Units total;
  const int t = blockIdx.x;
  if (threadIdx.x == 0) {
    highest = 0;
    total = 0;
  }
  __syncthreads();
  uint32_t mine = 0;
  each_logit(logits, z, t, [&](uint32_t order, float) { mine = order > mine ? order : mine; });
  atomicMax(&highest, mine);
  uint32_t lowest = 0;
  if (top_k > 0 && top_k < z.vocab) {
    lowest = select(logits, z, t, Units(top_k), [](uint32_t, float) { return Units(1); });
  }
  __syncthreads();
  if (top_p < 1) {
    const float top = float_of_order(highest);
    const auto units = [&](uint32_t order, float logit) {
      return order >= lowest ? Units(probability_units(logit, top, temperature)) : Units(0);
    };
    Units sum = 0;
    each_logit(logits, z, t, [&](uint32_t order, float logit) { sum += units(order, logit); });
    atomicAdd(&total, sum);
    __syncthreads();
    const uint32_t found = select(logits, z, t, Units(ceil(top_p * double(total))), units);
    lowest = found > lowest ? found : lowest;
  }
  if (threadIdx.x == 0) floor[t] = lowest == 0 ? -INFINITY : float_of_order(lowest);
}

}  // namespace

int op_sample(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SAMPLE], t, nt, s, ns);
  const SampleArgs z = read_sample(a);
  if (!a.ok() || z.rows == 0) return a.status();
  const auto run = [&](const auto* logits) {
    sample_kernel<<<dim3(MB_SAMPLE_PARTS, unsigned(z.rows)), kThreads, 0, stream>>>(
        logits, z.row_ids, z.positions, z.floor, z.out, int(z.rows), int(z.cols), int(z.vstart), z.temperature,
        z.seed_lo, z.seed_hi);
  };
  if (z.dtype == MB_F32) {
    run(static_cast<const float*>(z.logits));
  } else {
    run(static_cast<const bf16*>(z.logits));
  }
  return launched("sample");
}

int op_sample_pick(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SAMPLE_PICK], t, nt, s, ns);
  const PickArgs z = read_sample_pick(a);
  if (!a.ok() || z.rows == 0) return a.status();
  sample_pick_kernel<<<unsigned(ceil_div(z.rows, 64)), 64, 0, stream>>>(z.scores, z.tokens, int(z.parts), int(z.rows));
  return launched("sample_pick");
}

int op_sample_floor(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SAMPLE_FLOOR], t, nt, s, ns);
  const FloorArgs z = read_sample_floor(a);
  if (!a.ok() || z.rows == 0) return a.status();
  const FloorShape shape{int(z.shards), int(z.rows), int(z.vocab), int(z.room)};
  const auto run = [&](const auto* logits) {
    sample_floor_kernel<<<unsigned(z.rows), kFloorThreads, 0, stream>>>(logits, z.floor, shape, z.temperature,
                                                                        int(z.top_k), z.top_p);
  };
  if (z.dtype == MB_F32) {
    run(static_cast<const float*>(z.logits));
  } else {
    run(static_cast<const bf16*>(z.logits));
  }
  return launched("sample_floor");
}

}  // namespace mb::cuda::kernels
