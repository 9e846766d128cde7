#include "cpu/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "comm/table.h"
#include "core/error.h"
#include "core/host.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace mb {

int commit_pages(int64_t bytes, Pages* out) {
  using ll = long long;
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t available = host_memory().available;
  if (bytes > available - page) {
    return fail(MB_ERR_MEMORY, "cannot allocate %lld bytes: %lld bytes of memory are available to this process",
                static_cast<ll>(bytes), static_cast<ll>(available));
  }
  const int64_t whole = (bytes + page - 1) / page * page;
  void* ptr = mmap(nullptr, static_cast<size_t>(whole), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ptr == MAP_FAILED) {
    return fail(MB_ERR_MEMORY, "cannot allocate %lld bytes: %s", static_cast<ll>(bytes), strerror(errno));
  }
  madvise(ptr, static_cast<size_t>(whole), MADV_HUGEPAGE);  // only a hint
  if (madvise(ptr, static_cast<size_t>(whole), MADV_POPULATE_WRITE) != 0) {
    const int reason = errno;
    if (reason == EINVAL) {  // an older kernel: touch every page
      for (int64_t at = 0; at < whole; at += page) static_cast<volatile char*>(ptr)[at] = 0;
    } else {
      munmap(ptr, static_cast<size_t>(whole));
      return fail(MB_ERR_MEMORY, "cannot commit %lld bytes: %s", static_cast<ll>(bytes), strerror(reason));
    }
  }
  *out = {ptr, whole};
  return MB_OK;
}

void release_pages(const Pages& pages) {
  if (pages.ptr != nullptr) munmap(pages.ptr, static_cast<size_t>(pages.bytes));
}

}  // namespace mb

mb_device::~mb_device() {
  for (const auto& id : ids) mb_host_release_id(id.data());
  mb::release_pages(packing);
  for (const auto& entry : arenas) mb::release_pages(entry.second);
}
