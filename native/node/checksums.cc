#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "core/crc32.h"
#include "core/host.h"
#include "node/addon.h"
#include "node/background.h"
#include "node/errors.h"

namespace mb::node {
namespace {

constexpr size_t kMostThreads = 4;  // these read as fast as a rank's share of the memory allows

void sum_blocks(const uint8_t* data, size_t bytes, size_t block, std::vector<uint32_t>* sums) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < sums->size(); i = next++) {
      (*sums)[i] = crc32(0, data + i * block, std::min(block, bytes - i * block));
    }
  };
  const auto most = std::min<size_t>(kMostThreads, static_cast<size_t>(usable_cores()));
  std::vector<std::thread> others;
  try {
    while (others.size() + 1 < std::min(most, sums->size())) others.emplace_back(work);
  } catch (...) {
    // a limit of threads: fewer do it
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace

Napi::Value Addon::block_sums(Info info) {
  Napi::Uint8Array memory = byte_array(info, 0, "memory");
  const auto block = static_cast<size_t>(integer(info, 1, "block", 1, int64_t{1} << 40));
  const size_t bytes = memory.ByteLength();
  const uint8_t* const data = memory.Data();
  const auto sums = std::make_shared<std::vector<uint32_t>>((bytes + block - 1) / block);
  // Let go on the JavaScript's thread alone: where the environment ends first, its memory goes with it.
  auto* const held = new Napi::Reference<Napi::Uint8Array>(Napi::Persistent(memory));
  Background job;
  job.work = [=](std::string*) {
    sum_blocks(data, bytes, block, sums.get());
    return MB_OK;
  };
  job.value = [=](Napi::Env env) -> Napi::Value {
    delete held;
    Napi::Uint32Array out = Napi::Uint32Array::New(env, sums->size());
    std::copy(sums->begin(), sums->end(), out.Data());
    return out;
  };
  return run_in_background(info.Env(), state_.jobs, std::move(job));
}

}  // namespace mb::node
