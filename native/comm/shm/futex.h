// Waiting on 32-bit words shared between processes.
#pragma once
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "comm/communicator.h"

namespace mb::shm {

using comm::now_ns;

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);

// A word that others change, and how many sleep on it. They share a cache line.
struct alignas(64) Signal {
  std::atomic<uint32_t> word;
  std::atomic<uint32_t> sleepers;
};

// Sleeps until a wake-up, for `ns` at most, or returns at once if the word is no longer `seen`. Not FUTEX_PRIVATE: the
// word lies in a segment mapped by several processes.
inline void futex_wait(std::atomic<uint32_t>* word, uint32_t seen, int64_t ns) {
  timespec limit{ns / 1000000000, ns % 1000000000};
  syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

// Wakes the sleepers, after the word was changed by a sequentially consistent store. A sleeper raises `sleepers` before
// it looks at the word for the last time, so either it sees the change or we see the sleeper.
inline void wake(Signal& signal) {
  if (signal.sleepers.load() != 0) syscall(SYS_futex, &signal.word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace mb::shm
