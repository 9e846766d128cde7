// Which algorithm serves a product in a fixed order: what gives the bits of product_in_order, and is fastest.
#include <vector>

#include "cuda/device/error.h"
#include "cuda/kernels/few_rows.h"
#include "cuda/ops/gemm.h"

namespace mb::cuda {
namespace {

// Device memory for as long as an algorithm is chosen.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(memory_); }
  int take(int64_t bytes) {
    MB_CUDA(cudaMalloc(&memory_, static_cast<size_t>(bytes)));
    return MB_OK;
  }
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

struct EventPair {
  cudaEvent_t first = nullptr, last = nullptr;

  EventPair() = default;
  EventPair(const EventPair&) = delete;
  ~EventPair() {
    for (cudaEvent_t event : {first, last}) {
      if (event) cudaEventDestroy(event);
    }
  }
  int create() {
    MB_CUDA(cudaEventCreate(&first));
    MB_CUDA(cudaEventCreate(&last));
    return MB_OK;
  }
};

}  // namespace

// Compares on deviates in place of A where its rows are few and may all be zero, several times so that there are enough
// elements; on A itself where it is long.
int Gemm::choose_in_order(const Call& call, const lt::HeuristicResult* results, int found, Plan* plan) {
  constexpr int64_t kRows = 256;
  constexpr int kRuns = 3;
  const GemmArgs& z = call.args;
  const cudaStream_t stream = call.cuda_stream;
  const bool few = z.m <= kRows;
  const int64_t trials = few ? kRows / z.m : 1;
  DeviceMemory deviates, counted;
  EventPair events;
  MB_TRY(counted.take(sizeof(unsigned long long)));
  MB_TRY(events.create());
  if (few) {
    MB_TRY(deviates.take(trials * z.m * z.lda * 2));
    MB_TRY(kernels::fill_for_comparison(stream, deviates.get(), trials * z.m * z.lda, 1));
  }
  std::vector<Plan> candidates;
  const auto add = [&](Plan::Server server, const lt::Algo& algo) {
    candidates.push_back(*plan);
    candidates.back().server = server;
    candidates.back().algo = algo;
  };
  for (int i = 0; i < found; ++i) {
    const bool fits = results[i].state == lt::kSuccess && results[i].workspace_bytes <= kWorkspaceBytes;
    if (fits) add(Plan::Server::library, results[i].algo);
  }
  if (kernels::fits_few_rows(kernels::product_of(z, z.a))) add(Plan::Server::few_rows, {});
  plan->server = Plan::Server::in_order;
  float best = 0;
  for (const Plan& candidate : candidates) {
    auto* const differing = static_cast<unsigned long long*>(counted.get());
    MB_CUDA(cudaMemsetAsync(differing, 0, sizeof *differing, stream));
    for (int64_t trial = 0; trial < trials; ++trial) {
      const void* const a = few ? static_cast<const char*>(deviates.get()) + trial * z.m * z.lda * 2 : z.a;
      MB_TRY(multiply(candidate, call, a));
      MB_TRY(kernels::compare_in_order(stream, kernels::product_of(z, a), differing));
    }
    unsigned long long count = 0;
    MB_CUDA(cudaMemcpyAsync(&count, differing, sizeof count, cudaMemcpyDeviceToHost, stream));
    MB_CUDA(cudaStreamSynchronize(stream));
    if (count > 0) continue;
    MB_CUDA(cudaEventRecord(events.first, stream));
    for (int run = 0; run < kRuns; ++run) MB_TRY(multiply(candidate, call, z.a));
    MB_CUDA(cudaEventRecord(events.last, stream));
    MB_CUDA(cudaEventSynchronize(events.last));
    float ms = 0;
    MB_CUDA(cudaEventElapsedTime(&ms, events.first, events.last));
    if (plan->server != Plan::Server::in_order && ms >= best) continue;
    best = ms;
    *plan = candidate;
  }
  return MB_OK;
}

}  // namespace mb::cuda
