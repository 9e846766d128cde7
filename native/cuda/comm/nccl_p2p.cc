// Transfers between members: lists of sends and receives, and all to all.
#include <string>
#include <vector>

#include "core/all_to_all.h"
#include "cuda/comm/nccl_comm.h"
#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

// All of ops in one group, so that they progress together.
nccl::Result exchange(const mb_p2p* ops, int count, nccl::Comm c, cudaStream_t s) {
  const Nccl& lib = load_nccl();
  nccl::Result result = lib.GroupStart();
  if (result != nccl::kSuccess) return result;
  for (int i = 0; i < count && (result == nccl::kSuccess || result == nccl::kInProgress); i++) {
    const mb_buf& buf = ops[i].buf;
    if (buf.bytes == 0) continue;
    result = ops[i].send ? lib.Send(buf.ptr, buf.bytes, nccl::kUint8, ops[i].peer, c, s)
                         : lib.Recv(buf.ptr, buf.bytes, nccl::kUint8, ops[i].peer, c, s);
  }
  const nccl::Result ended = lib.GroupEnd();  // always: the group must be closed on this thread
  return result == nccl::kSuccess || result == nccl::kInProgress ? ended : result;
}

}  // namespace

int p2p(mb_comm* handle, int stream, const mb_p2p* ops, int count) {
  Comm& comm = *handle->shared;
  for (int i = 0; i < count; i++) {
    const mb_buf& buf = ops[i].buf;
    if (ops[i].peer < 0 || ops[i].peer >= comm.size || ops[i].peer == comm.rank || (!buf.ptr && buf.bytes > 0)) {
      return fail(MB_ERR_ARGUMENT, "%s: p2p: transfer %d has peer %d and %lld bytes; a peer is another member",
                  comm.describe().c_str(), i, ops[i].peer, static_cast<long long>(buf.bytes));
    }
  }
  if (count <= 0) return MB_OK;
  return issue(comm, stream, "p2p", [&](nccl::Comm c, cudaStream_t s) { return exchange(ops, count, c, s); });
}

int all_to_all(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, const int64_t* send_counts,
               const int64_t* send_offsets, const int64_t* recv_counts, const int64_t* recv_offsets) {
  Comm& comm = *handle->shared;
  const AllToAll call = {*in, *out, comm.size, send_counts, send_offsets, recv_counts, recv_offsets};
  std::string problem = call.problem();
  if (problem.empty() && send_counts[comm.rank] != recv_counts[comm.rank]) {
    problem = "it sends itself " + std::to_string(send_counts[comm.rank]) + " elements and expects " +
              std::to_string(recv_counts[comm.rank]);
  }
  if (!problem.empty()) {
    return fail(MB_ERR_ARGUMENT, "%s: all_to_all: %s", comm.describe().c_str(), problem.c_str());
  }
  // NCCL sends to itself too: the copy is then in order with the rest.
  const std::vector<mb_p2p> transfers = call.transfers();
  if (comm.size == 1) return copy_alone(comm, stream, &transfers[0].buf, &transfers[1].buf, send_counts[0]);
  return issue(comm, stream, "all_to_all", [&](nccl::Comm c, cudaStream_t s) {
    return exchange(transfers.data(), static_cast<int>(transfers.size()), c, s);
  });
}

}  // namespace mb::cuda
