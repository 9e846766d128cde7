#include "comm/shm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mb::shm {
namespace {

enum class Stat { kRead, kGone, kUnreadable };

// Fields 3 (state) and 22 (start time) of /proc/<pid>/stat. The command name in field 2 may hold anything, so fields
// are counted from its last closing parenthesis.
Stat read_stat(int pid, char* state, uint64_t* start_time) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? Stat::kGone : Stat::kUnreadable;
  ssize_t n = read(fd, text, sizeof text - 1);
  int error = errno;
  close(fd);
  if (n <= 0) return n < 0 && error != ESRCH ? Stat::kUnreadable : Stat::kGone;
  text[n] = 0;
  char* at = strrchr(text, ')');
  if (!at || at[1] != ' ' || !at[2]) return Stat::kUnreadable;
  at += 2;
  *state = *at;
  for (int field = 3; field < 22; field++) {
    at = strchr(at, ' ');
    if (!at) return Stat::kUnreadable;
    at++;
  }
  *start_time = strtoull(at, nullptr, 10);
  return Stat::kRead;
}

}  // namespace

ProcessId this_process() {
  char state;
  uint64_t start_time = 0;
  int pid = getpid();
  if (read_stat(pid, &state, &start_time) != Stat::kRead) start_time = 0;
  return {pid, start_time};
}

bool process_alive(const ProcessId& process) {
  char state;
  uint64_t start_time;
  switch (read_stat(process.pid, &state, &start_time)) {
    case Stat::kGone:
      return false;
    case Stat::kUnreadable:
      return true;
    case Stat::kRead:
      break;
  }
  return start_time == process.start_time && state != 'Z' && state != 'X';
}

uint64_t pid_namespace() {
  struct stat info;
  return stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

}  // namespace mb::shm
