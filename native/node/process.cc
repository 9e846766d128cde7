#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/host.h"
#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

namespace {

constexpr int64_t kMost = (int64_t{1} << 53) - 1;

}  // namespace

void Addon::die_with_parent(Info info) {
  const auto parent = static_cast<pid_t>(integer(info, 0, "parentPid", 1, 1 << 30));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the call above, which then never fires.
  if (getppid() != parent) _exit(128 + SIGKILL);
}

Napi::Value Addon::cpu_count(Info info) { return Napi::Number::New(info.Env(), usable_cores()); }

Napi::Value Addon::memory_create(Info info) {
  const int64_t bytes = integer(info, 0, "bytes", 1, kMost);
  const int64_t reserved = integer(info, 1, "reserved", 1, bytes);
  const int fd = memfd_create("mbridge-state", MFD_CLOEXEC);
  // What is not reserved would end the process when it is written to and there is no memory left.
  if (fd < 0 || ftruncate(fd, bytes) != 0 || fallocate(fd, 0, 0, reserved) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    throw make_error(info.Env(), MB_ERR_MEMORY,
                     std::to_string(reserved) + " bytes of memory to share are needed (" + strerror(error) + ")");
  }
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Addon::memory_map(Info info) {
  const auto fd = static_cast<int>(integer(info, 0, "fd", 0, 1 << 30));
  const int64_t offset = integer(info, 1, "offset", 0, kMost);
  const auto bytes = static_cast<size_t>(integer(info, 2, "bytes", 1, kMost));
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (memory == MAP_FAILED) {
    throw make_error(info.Env(), MB_ERR_MEMORY,
                     std::to_string(bytes) + " bytes of shared memory cannot be mapped (" + strerror(errno) + ")");
  }
  return Napi::ArrayBuffer::New(info.Env(), memory, bytes, [bytes](Napi::Env, void* mapped) { munmap(mapped, bytes); });
}

}  // namespace mb::node
