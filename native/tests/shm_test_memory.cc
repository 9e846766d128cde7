// A small /dev/shm, and that nothing stays behind: in a mount namespace of our own with a tmpfs of a known size.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/table.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();

bool write_file(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY);
  if (fd < 0) return false;
  const bool ok = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return ok;
}

// Runs body in a process that sees a /dev/shm of `bytes`; -1 where that is not permitted.
int with_dev_shm(int64_t bytes, int (*body)()) {
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int uid = static_cast<int>(getuid()), gid = static_cast<int>(getgid());
    if (unshare(CLONE_NEWNS) != 0) {
      if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) _exit(99);
      write_file("/proc/self/setgroups", "deny");
      write_file("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
      write_file("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
    }
    const std::string options = "size=" + std::to_string(bytes) + ",mode=1777";
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(99);
    if (mount("tmpfs", "/dev/shm", "tmpfs", 0, options.c_str()) != 0) _exit(99);
    const int result = body();
    fflush(nullptr);
    _exit(result == 0 ? 0 : 1);
  }
  int status;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status)) return 1;
  if (WEXITSTATUS(status) != 99) return WEXITSTATUS(status);
  printf("     mounting a tmpfs is not permitted here\n");
  return -1;
}

int64_t used_bytes() {
  struct statvfs fs;
  if (statvfs("/dev/shm", &fs) != 0) return -1;
  return static_cast<int64_t>(fs.f_blocks - fs.f_bfree) * static_cast<int64_t>(fs.f_frsize);
}

int too_small() {
  return with_dev_shm(1 << 20, [] {
    return run(3, [](int rank, Board& board) {
      int status;
      const double start = seconds();
      join(board, 0, "tp", first_ranks(3), rank, 20, &status);
      CHECK(status == MB_ERR_MEMORY);
      CHECK(seconds() - start < kSoon);
      CHECK_ERROR("shared memory of group tp [0,1,2]: " + std::to_string(mb_shm_segment_bytes(3)) +
                  " bytes are needed in /dev/shm, which has ");
      CHECK_ERROR(" of 1048576 available (No space left on device)");
      CHECK(used_bytes() == 0);
      meet(board, 3);
    });
  });
}

// Full to the last page by others, and just large enough.
int exact_fit() {
  return with_dev_shm((mb_shm_segment_bytes(2) + 4095) / 4096 * 4096, [] {
    return run(2, [](int rank, Board& board) {
      mb_comm* comm = join(board, 0, "tp", first_ranks(2), rank);
      std::vector<float> x(500000, 1);
      const mb_buf buf = buffer(x, MB_F32);
      CHECK_OK(table->all_reduce(comm, 0, &buf, &buf, 500000, MB_SUM));
      CHECK(used_bytes() >= mb_shm_segment_bytes(2));
      table->destroy(comm);
    });
  });
}

// All members kill each other: by turns while some still join, and in the middle of a collective.
void die_together(int rank, Board& board, bool joining) {
  if (joining && rank == 3) {
    sleep_s(0.03);
    for (int r = 0; r < 4; r++) kill(board.pids[r], SIGKILL);
  }
  int status;
  mb_comm* comm = join(board, 0, "tp", first_ranks(4), rank, 20, &status);
  if (status != MB_OK) sleep_s(10);  // it has seen another die before its turn came
  std::vector<float> x(300000);
  const mb_buf buf = buffer(x, MB_F32);
  for (int i = 0;; i++) {
    if (rank == 0 && i == 5) {
      CHECK(used_bytes() >= mb_shm_segment_bytes(4));
      for (int r = 3; r >= 0; r--) kill(board.pids[r], SIGKILL);
    }
    table->all_reduce(comm, 0, &buf, &buf, 300000, MB_SUM);
  }
}

int nothing_left() {
  return with_dev_shm(64 << 20, [] {
    int failures = 0;
    for (int round = 0; round < 6; round++) {
      const Body body = [round](int rank, Board& board) { die_together(rank, board, round % 2 == 0); };
      failures += run(4, body, {0, 1, 2, 3});
      if (used_bytes() != 0) {
        fprintf(stderr, "    %lld bytes of /dev/shm are still in use\n", static_cast<long long>(used_bytes()));
        failures++;
      }
    }
    return failures;
  });
}

// Without /dev/shm, hidden here by an empty /dev, memory without a file system serves.
int no_dev_shm() {
  return with_dev_shm(1 << 20, [] {
    CHECK(mount("tmpfs", "/dev", "tmpfs", 0, "size=4096") == 0);
    CHECK(used_bytes() == -1);
    return run(2, [](int rank, Board& board) {
      mb_comm* comm = join(board, 0, "tp", first_ranks(2), rank);
      CHECK_OK(table->barrier(comm, 0));
      table->destroy(comm);
    });
  });
}

int segments_are_small() {
  struct Case {
    int size;
    int64_t limit;
  };
  for (const Case& c : {Case{1, 0}, Case{2, 5 << 18}, Case{8, 5 << 20}, Case{64, 40 << 20}}) {
    if (mb_shm_segment_bytes(c.size) > c.limit) {
      fprintf(stderr, "    %d ranks: %lld bytes\n", c.size, static_cast<long long>(mb_shm_segment_bytes(c.size)));
      return 1;
    }
  }
  return 0;
}

}  // namespace

std::vector<Test> memory_tests() {
  return {{"memory: /dev/shm too small", too_small},
          {"memory: /dev/shm just large enough", exact_fit},
          {"memory: nothing left after SIGKILL of all", nothing_left},
          {"memory: without /dev/shm", no_dev_shm},
          {"memory: segments are small", segments_are_small}};
}

}  // namespace mb::shm_test
