// A persistent pool of threads that share the tasks of one call. Which thread runs a task is not fixed, so a task's
// result may depend on its index only.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace mb {

class Pool {
 public:
  // The calling thread of run() is one of `threads`.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(index, slot) for every index in [0, count), count < 2^32, and returns when all are done. slot <
  // threads() is unique among the tasks running at one moment, for scratch memory. Tasks must not throw or call run().
  template <class Task>
  void run(int64_t count, const Task& task) {
    if (count <= 0) return;
    if (count == 1 || workers_.empty()) {
      for (int64_t i = 0; i < count; ++i) task(i, 0);
      return;
    }
    share(
        count, [](const void* context, int64_t i, int slot) { (*static_cast<const Task*>(context))(i, slot); }, &task);
  }

  // Splits [0, n) into runs of at least `grain` items and calls body(begin, end, slot) for each.
  template <class Body>
  void split(int64_t n, int64_t grain, const Body& body) {
    // A few chunks a thread even out threads that were descheduled; more only cost overhead.
    int64_t chunks = n / (grain < 1 ? 1 : grain);
    const int64_t most = threads() == 1 ? 1 : 4 * static_cast<int64_t>(threads());
    chunks = chunks < 1 ? 1 : chunks > most ? most : chunks;
    run(chunks, [&](int64_t i, int slot) { body(n * i / chunks, n * (i + 1) / chunks, slot); });
  }

 private:
  using Call = void (*)(const void* context, int64_t index, int slot);

  void share(int64_t count, Call call, const void* context);
  void work(int slot);
  // Claims and runs one task; false when none is left.
  bool run_one(int slot);

  std::vector<std::thread> workers_;
  std::mutex one_caller_;
  // High half: the number of the call; low half: its tasks not yet claimed. One word, so that a claim can never mix two
  // calls, and a worker that wakes late finds nothing to claim instead of a stale task.
  alignas(64) std::atomic<uint64_t> open_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  // Of the current call: written before open_ is, read only after a claim.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace mb
