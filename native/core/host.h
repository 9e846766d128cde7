// What this machine grants this process, honouring affinity masks and cgroup limits (v1 and v2).
#pragma once
#include <cstdint>
#include <string>

namespace mb {

// Cores this process may use: the affinity mask, capped by the cgroup's CPU quota rounded up; at least 1.
int usable_cores();

struct HostMemory {
  int64_t total;      // bytes: of the machine, or the cgroup's limit where that is smaller
  int64_t available;  // bytes that can still be committed without swapping or reaching the limit
};
HostMemory host_memory();

// The processor's model name; "CPU" where the system does not say.
std::string cpu_model();

}  // namespace mb
