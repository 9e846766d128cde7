// Real processes for the tests of native/comm: forked, with a page of memory in common.
#pragma once
#include <stdint.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "core/abi.h"

namespace mb::shm_test {

constexpr int kProcesses = 64;
constexpr int kGroups = 256;

// Zeroed, and shared by the processes of one test.
struct Board {
  std::atomic<uint32_t> id_ready[kGroups];
  uint8_t ids[kGroups][128];
  std::atomic<int> met;
  std::atomic<uint32_t> flag[kProcesses];  // free for the test
  std::atomic<int64_t> number[kProcesses];
  int pids[kProcesses];
  std::atomic<uint32_t> started;  // pids is complete
};

// Whether groups are made as if their members were on several nodes: over TCP, on the loopback.
extern bool over_tcp;

using Body = std::function<void(int rank, Board& board)>;

// Forks n processes; each runs body and exits. Returns the number of those that failed: exit status other than 0, or a
// signal, except for the ranks in `killed`, which must have died of SIGKILL. Kills what still runs after 60 s, or 5 s
// after a failure.
int run(int n, const Body& body, std::vector<int> killed = {});

// Joins group number `slot` of the board as global rank `rank`; rank 0 of the group makes the id. Ends the process on
// an error, unless `status` receives it. `thread_ended` as in mb_host_comm_create.
mb_comm* join(Board& board, int slot, const char* name, const std::vector<int32_t>& ranks, int rank,
              double timeout_s = 20, int* status = nullptr, const std::atomic<bool>* thread_ended = nullptr);

// Returns once all n processes of the test have called it. Unlike a barrier it can end a test of failures, so that none
// ends while others still look at it. Once a test.
void meet(Board& board, int n);

std::vector<int32_t> first_ranks(int n);  // 0 .. n-1

mb_buf buffer(const void* data, int64_t bytes, int dtype);
template <typename T>
mb_buf buffer(const std::vector<T>& data, int dtype) {
  return buffer(data.data(), static_cast<int64_t>(data.size() * sizeof(T)), dtype);
}

double seconds();
// Long enough for a machine with other work, and far from the 20 s after which a join times out: what ends before it
// was told, and did not wait.
constexpr double kSoon = 10;
void sleep_s(double s);
// A small generator with the same numbers everywhere.
uint64_t hash(uint64_t x);

// Whether the thread's last error contains the text.
bool told(const std::string& text);

// In a test process: print and exit(1). The text of the last error is printed too.
[[noreturn]] void fail_test(const char* file, int line, const std::string& what);

#define CHECK(x) \
  if (!(x)) mb::shm_test::fail_test(__FILE__, __LINE__, #x)
#define CHECK_OK(x) CHECK((x) == MB_OK)
#define CHECK_ERROR(text) \
  if (!mb::shm_test::told(text)) mb::shm_test::fail_test(__FILE__, __LINE__, std::string("error has ") + (text))

enum Over { kShm = 1, kTcp = 2, kBoth = 3 };
struct Test {
  const char* name;
  int (*run)();  // 0 passed, above 0 failed, -1 not possible here (it has printed why)
  Over over = kShm;
};
std::vector<Test> collective_tests();
std::vector<Test> p2p_tests();
std::vector<Test> failure_tests();
std::vector<Test> memory_tests();
std::vector<Test> tcp_tests();
int bench();

}  // namespace mb::shm_test
