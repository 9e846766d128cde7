// Identity and life of processes, from /proc.
#pragma once
#include <stdint.h>

namespace mb::shm {

// A pid alone may be reused; with the start time (clock ticks since boot) it names one process.
struct ProcessId {
  int32_t pid;
  uint64_t start_time;
};

ProcessId this_process();

// False once the process has ended, even if nobody has reaped it (a zombie). True when /proc cannot be read.
bool process_alive(const ProcessId& process);

// Inode of this process's PID namespace, 0 if unknown.
uint64_t pid_namespace();

}  // namespace mb::shm
