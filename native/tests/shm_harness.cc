#include "tests/shm_harness.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "comm/table.h"
#include "core/error.h"

namespace mb::shm_test {

bool over_tcp = false;

int run(int n, const Body& body, std::vector<int> killed) {
  void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  Board& board = *static_cast<Board*>(memory);
  fflush(nullptr);
  for (int rank = 0; rank < n; rank++) {
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (!board.started.load()) sleep_s(0.0001);
      body(rank, board);
      fflush(nullptr);
      _exit(0);
    }
    board.pids[rank] = pid;
  }
  board.started.store(1);
  int failures = 0;
  double deadline = seconds() + 60;
  std::vector<bool> ended(n);
  for (int left = n; left > 0;) {
    int status;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) {
      sleep_s(0.001);
      if (seconds() > deadline) {
        for (int rank = 0; rank < n; rank++) {
          if (!ended[rank]) kill(board.pids[rank], SIGKILL);
        }
      }
      continue;
    }
    left--;
    const int rank = static_cast<int>(std::find(board.pids, board.pids + n, pid) - board.pids);
    ended[rank] = true;
    const bool by_kill = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    const bool expected = std::find(killed.begin(), killed.end(), rank) != killed.end();
    if (expected ? !by_kill : status != 0) {
      fprintf(stderr, "    rank %d ended with %s %d\n", rank, WIFSIGNALED(status) ? "signal" : "status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      failures++;
      // The others may wait for it in the test itself.
      deadline = std::min(deadline, seconds() + 5);
    }
  }
  munmap(memory, sizeof(Board));
  return failures;
}

mb_comm* join(Board& board, int slot, const char* name, const std::vector<int32_t>& ranks, int rank, double timeout_s,
              int* status, const std::atomic<bool>* thread_ended) {
  const mb_comm_table* table = mb_host_comm_table();
  const int member = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
  if (member == 0) {
    CHECK_OK(table->make_id(nullptr, over_tcp ? "127.0.0.1" : nullptr, board.ids[slot]));
    if (over_tcp) std::fill_n(board.ids[slot] + 96, 32, static_cast<uint8_t>(slot + 1));  // the key
    board.id_ready[slot].store(1);
  }
  while (!board.id_ready[slot].load()) sleep_s(0.0002);
  mb_comm* comm = nullptr;
  const int result = mb_host_comm_create(thread_ended, board.ids[slot], name, member, static_cast<int>(ranks.size()),
                                         ranks.data(), timeout_s, &comm);
  if (status) {
    *status = result;
  } else {
    CHECK_OK(result);
  }
  return comm;
}

void meet(Board& board, int n) {
  board.met.fetch_add(1);
  while (board.met.load() < n) sleep_s(0.0005);
}

std::vector<int32_t> first_ranks(int n) {
  std::vector<int32_t> ranks(n);
  for (int i = 0; i < n; i++) ranks[i] = i;
  return ranks;
}

mb_buf buffer(const void* data, int64_t bytes, int dtype) { return {const_cast<void*>(data), bytes, dtype, 0}; }

double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void sleep_s(double s) {
  timespec t{static_cast<time_t>(s), static_cast<long>((s - static_cast<double>(static_cast<time_t>(s))) * 1e9)};
  nanosleep(&t, nullptr);
}

uint64_t hash(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool told(const std::string& text) { return std::string(last_error()).find(text) != std::string::npos; }

void fail_test(const char* file, int line, const std::string& what) {
  fprintf(stderr, "    %s:%d: not so: %s (last error: %s)\n", file, line, what.c_str(), last_error());
  _exit(1);
}

}  // namespace mb::shm_test
