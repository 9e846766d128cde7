// mb_comm_table over Communicator: argument checks that need no communicator, and no exception crosses the boundary.
#include "comm/table.h"

#include <math.h>

#include <algorithm>
#include <new>

#include "comm/shm/comm.h"
#include "comm/tcp/comm.h"
#include "core/error.h"

namespace mb::comm {
namespace {

Communicator* of(mb_comm* comm) { return reinterpret_cast<Communicator*>(comm); }

template <typename Call>
int guarded(Call call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(MB_ERR_MEMORY, "out of memory in a communicator");
  }
}

int make_group_id(mb_device*, const char* address, uint8_t id[128]) {
  return address ? tcp::make_id(address, id) : shm::make_id(id);
}

int create(mb_device*, const uint8_t id[128], const char* name, int rank, int size, const int32_t* ranks,
           double timeout_s, mb_comm** out) {
  return mb_host_comm_create(nullptr, id, name, rank, size, ranks, timeout_s, out);
}

void destroy(mb_comm* comm) { delete of(comm); }
void abort(mb_comm* comm) {
  guarded([&] {
    of(comm)->abort();
    return MB_OK;
  });
}
int all_reduce(mb_comm* comm, int, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  return guarded([&] { return of(comm)->all_reduce(*in, *out, n, op); });
}
int reduce_scatter(mb_comm* comm, int, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  return guarded([&] { return of(comm)->reduce_scatter(*in, *out, n, op); });
}
int all_gather(mb_comm* comm, int, const mb_buf* in, const mb_buf* out, int64_t n) {
  return guarded([&] { return of(comm)->all_gather(*in, *out, n); });
}
int broadcast(mb_comm* comm, int, const mb_buf* buf, int64_t n, int root) {
  return guarded([&] { return of(comm)->broadcast(*buf, n, root); });
}
int p2p(mb_comm* comm, int, const mb_p2p* ops, int count) {
  return guarded([&] { return of(comm)->p2p(ops, count); });
}
int all_to_all(mb_comm* comm, int, const mb_buf* in, const mb_buf* out, const int64_t* send_counts,
               const int64_t* send_offsets, const int64_t* recv_counts, const int64_t* recv_offsets) {
  return guarded([&] {
    return of(comm)->all_to_all({*in, *out, of(comm)->size(), send_counts, send_offsets, recv_counts, recv_offsets});
  });
}
int barrier(mb_comm* comm, int) {
  return guarded([&] { return of(comm)->barrier(); });
}
int check(mb_comm* comm) {
  return guarded([&] { return of(comm)->check(); });
}

}  // namespace
}  // namespace mb::comm

int mb_host_comm_create(const std::atomic<bool>* thread_ended, const uint8_t id[128], const char* name, int rank,
                        int size, const int32_t* ranks, double timeout_s, mb_comm** out) {
  using namespace mb;
  using namespace mb::comm;
  if (!id || !name || !ranks || !out) return fail(MB_ERR_ARGUMENT, "comm create: a pointer is null");
  if (size < 1 || rank < 0 || rank >= size) {
    return fail(MB_ERR_ARGUMENT, "comm create of group %s: rank %d of %d", name, rank, size);
  }
  if (size > kMaxRanks) {
    return fail(MB_ERR_UNSUPPORTED, "group %s has %d ranks; on the CPU it can have %d", name, size, kMaxRanks);
  }
  if (!(timeout_s > 0)) return fail(MB_ERR_ARGUMENT, "comm create of group %s: timeout_s is %g", name, timeout_s);
  for (int i = 1; i < size; i++) {
    if (std::find(ranks, ranks + i, ranks[i]) != ranks + i) {
      return fail(MB_ERR_ARGUMENT, "comm create of group %s: rank %d is listed twice", name, ranks[i]);
    }
  }
  return guarded([&] {
    const auto timeout_ns = static_cast<int64_t>(fmin(timeout_s, 1e9) * 1e9);
    const Joining who{id, name, rank, size, ranks, timeout_ns, thread_ended};
    Communicator* comm = nullptr;
    const int status = tcp::is_id(id) ? tcp::Comm::create(who, &comm) : shm::Comm::create(who, &comm);
    if (status == MB_OK) *out = reinterpret_cast<mb_comm*>(comm);
    return status;
  });
}

void mb_host_release_id(const uint8_t id[128]) {
  if (mb::tcp::is_id(id)) {
    mb::tcp::release_id(id);
  } else {
    mb::shm::release_id(id);
  }
}

const mb_comm_table* mb_host_comm_table() {
  using namespace mb::comm;
  static constexpr mb_comm_table kTable = {.make_id = make_group_id,
                                           .create = create,
                                           .destroy = destroy,
                                           .abort = abort,
                                           .all_reduce = all_reduce,
                                           .reduce_scatter = reduce_scatter,
                                           .all_gather = all_gather,
                                           .broadcast = broadcast,
                                           .p2p = p2p,
                                           .all_to_all = all_to_all,
                                           .barrier = barrier,
                                           .check = check,
                                           .share = nullptr,
                                           .unshare = nullptr,
                                           .calls = nullptr,
                                           .ops = {}};
  return &kTable;
}
