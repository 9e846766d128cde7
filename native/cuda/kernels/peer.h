// Kernels over the memory of a communicator's members, which every GPU of it reads and writes directly.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/kernels/kernels.h"

namespace mb::cuda::kernels {

constexpr int kMostPeers = 8;
constexpr int kPeerBlocks = 512;  // most blocks of a kernel here
// Words of one stream's flags: for the beginning and the end of a kernel, for each block, one from each member.
constexpr int kPeerFlags = 2 * kPeerBlocks * kMostPeers;

// What a kernel needs to know of the members. By value.
struct Peers {
  int rank, size;
  int64_t shift[kMostPeers];    // from an address in our window to the same place in a member's; 0 for our own
  uint32_t* flags[kMostPeers];  // each member's, of this stream
  const int* aborted;           // host memory: not 0 once nobody may be waited for
  uint32_t sequence;            // of this op on the stream, alike at all members
};

enum class Phase { kBegin, kEnd };

// A kernel of one block that ends when all members have come to it.
void meet(cudaStream_t stream, const Peers& peers, Phase phase);

// out[i] = sum over members of their in[i], added in the order of ranks; `in` lies at the same place in every member's
// window. count elements of `dtype` (f32 or bf16), whole 16 bytes, aligned to them.
void reduce(cudaStream_t stream, const Peers& peers, const void* in, void* out, int64_t count, int dtype);

// The ops of comm_ops.def; an mb_status.
int all_reduce_small(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns);
int reduce_norm_gather(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns);
int norm_bwd_gather(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns);

}  // namespace mb::cuda::kernels
