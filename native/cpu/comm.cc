// The communicator table of the CPU backend: collectives between processes, and the ops that a GPU fuses with them,
// here one after the other.
#include <algorithm>

#include "comm/table.h"
#include "core/op_args.h"
#include "cpu/backend.h"
#include "cpu/device.h"

namespace mb {
namespace {

// A collective and the op beside it share the device's thread, so one buffer serves all calls of it.
float* sums(int64_t count) {
  thread_local std::vector<float> memory;
  if (static_cast<int64_t>(memory.size()) < count) memory.resize(static_cast<size_t>(count));
  return memory.data();
}

mb_buf view(void* ptr, int64_t count) { return {ptr, count * static_cast<int64_t>(sizeof(float)), MB_F32, 0}; }

int make_id(mb_device* device, const char* address, uint8_t id[128]) {
  if (const int status = mb_host_comm_table()->make_id(device, address, id)) return status;
  const std::lock_guard<std::mutex> lock(device->mutex);
  std::copy_n(id, 128, device->ids.emplace_back().begin());
  return MB_OK;
}

int create(mb_device* device, const uint8_t id[128], const char* name, int rank, int size, const int32_t* ranks,
           double timeout_s, mb_comm** out) {
  {
    const std::lock_guard<std::mutex> lock(device->mutex);
    // The key at its end is the caller's.
    std::erase_if(device->ids, [&](const auto& made) { return std::equal(made.begin(), made.begin() + 96, id); });
  }
  return mb_host_comm_create(&device->thread_ended, id, name, rank, size, ranks, timeout_s, out);
}

// What is below moves everything through the communicator, whatever the arenas are.
int share(mb_comm*, const mb_buf*, int64_t, int* shared) {
  *shared = 1;
  return MB_OK;
}

int unshare(mb_comm* comm, const mb_buf*) { return mb_host_comm_table()->barrier(comm, 0); }

// This rank's rows of the members' sum of tensor 0.
int reduce_rows(mb_comm* comm, int stream, OpArgs& args, const mb_buf* t, mb_buf* sum, int64_t* count) {
  *count = times(args.size(0), args.size(1, 1));
  args.f32(0, *count);
  if (!args.ok()) return args.status();
  *sum = view(sums(*count), *count);
  return mb_host_comm_table()->reduce_scatter(comm, stream, &t[0], sum, *count, MB_SUM);
}

int op_reduce_norm_gather(mb_comm* comm, mb_device* device, int stream, const mb_buf* t, int nt, const double* s,
                          int ns) {
  OpArgs args(kCommOps[MB_COMM_OP_REDUCE_NORM_GATHER], t, nt, s, ns);
  mb_buf delta;
  int64_t count;
  if (const int status = reduce_rows(comm, stream, args, t, &delta, &count)) return status;
  const mb_buf tensors[] = {t[1], delta, t[2], t[3], t[4], t[6]};
  if (const int status = op_add_rmsnorm_fwd(device, stream, tensors, 6, s, ns)) return status;
  return mb_host_comm_table()->all_gather(comm, stream, &t[4], &t[5], count);
}

int op_norm_bwd_gather(mb_comm* comm, mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kCommOps[MB_COMM_OP_NORM_BWD_GATHER], t, nt, s, ns);
  mb_buf dy;
  int64_t count;
  if (const int status = reduce_rows(comm, stream, args, t, &dy, &count)) return status;
  const mb_buf tensors[] = {dy, t[1], t[2], t[3], t[4], t[5], t[6]};
  if (const int status = op_rmsnorm_bwd(device, stream, tensors, 7, s, ns)) return status;
  return t[7].ptr == nullptr ? MB_OK : mb_host_comm_table()->all_gather(comm, stream, &t[4], &t[7], count);
}

int op_all_reduce_small(mb_comm* comm, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kCommOps[MB_COMM_OP_ALL_REDUCE_SMALL], t, nt, s, ns);
  const int64_t n = args.size(0, 0, MB_COMM_SMALL / int64_t{sizeof(float)});
  const bool maximum = args.flag(1);
  args.f32(0, n);
  if (!args.ok()) return args.status();
  return mb_host_comm_table()->all_reduce(comm, stream, &t[0], &t[0], n, maximum ? MB_MAX : MB_SUM);
}

}  // namespace

mb_comm_table comm_table() {
  mb_comm_table table = *mb_host_comm_table();
  table.make_id = make_id;
  table.create = create;
  table.share = share;
  table.unshare = unshare;
#define MB_COMM_OP(NAME, name, tensors, scalars) table.ops[MB_COMM_OP_##NAME] = op_##name;
#include "core/comm_ops.def"
#undef MB_COMM_OP
  return table;
}

}  // namespace mb

void mb_cpu_thread_ended(mb_device* device) { device->thread_ended.store(true); }
