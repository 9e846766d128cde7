#include "core/pool.h"

namespace mb {
namespace {

// Ranks share cores, so a thread spins only about as long as the gap between two ops of a step, then gives way.
constexpr int kSpins = 4000;

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
  for (int slot = 1; slot < threads; ++slot) workers_.emplace_back([this, slot] { work(slot); });
}

Pool::~Pool() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Pool::run_one(int slot) {
  uint64_t open = open_.load(std::memory_order_acquire);
  uint32_t left;
  do {
    left = static_cast<uint32_t>(open);
    if (left == 0) return false;
  } while (!open_.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel, std::memory_order_acquire));
  call_(context_, count_ - left, slot);
  unfinished_.fetch_sub(1, std::memory_order_release);
  return true;
}

void Pool::work(int slot) {
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t seen = wake_.load();
    if (run_one(slot)) continue;
    bool found = false;
    for (int i = 0; i < kSpins && !found; ++i) {
      pause_cpu();
      found = static_cast<uint32_t>(open_.load(std::memory_order_relaxed)) != 0;
    }
    if (found) continue;
    sleepers_.fetch_add(1);
    // Sequentially consistent with share(): either it sees this sleeper, or this thread sees its tasks.
    if (static_cast<uint32_t>(open_.load()) == 0 && !stop_.load()) wake_.wait(seen);
    sleepers_.fetch_sub(1);
  }
}

void Pool::share(int64_t count, Call call, const void* context) {
  const std::lock_guard<std::mutex> lock(one_caller_);
  call_ = call;
  context_ = context;
  count_ = count;
  unfinished_.store(count, std::memory_order_relaxed);
  const uint64_t number = (open_.load(std::memory_order_relaxed) >> 32) + 1;
  open_.store((number << 32) | static_cast<uint64_t>(count));
  if (sleepers_.load() > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  while (run_one(0)) {
  }
  // The others finish what they claimed: short, unless one was descheduled.
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace mb
