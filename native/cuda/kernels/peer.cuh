// What the kernels over members' memory share: how blocks meet, and where a member's part lies.
//
// A kernel begins when every member's has begun, so that all inputs are there, and ends when every member's has ended,
// so that nobody still reads or writes what comes next. Blocks meet one by one: block b of a member waits for the
// blocks b of the others alone, so all members must launch the same grid. A grid may be larger than what is resident at
// once: blocks start in ascending order, so the lowest one unfinished is resident at every member.
//
// After an abort kernels no longer wait, and what they leave is garbage. Hosts see the abort at their next wait or
// call, and an update at any rank comes after an all-reduce of the gradient's norm through NCCL, which then fails.
#pragma once
#include <type_traits>

#include "cuda/kernels/common.cuh"
#include "cuda/kernels/peer.h"

namespace mb::cuda::kernels {

__device__ __forceinline__ uint32_t* flag_of(uint32_t* flags, Phase phase, int rank) {
  return flags + ((phase == Phase::kBegin ? 0 : kPeerBlocks) + blockIdx.x) * kMostPeers + rank;
}

__device__ __forceinline__ void meet_block(const Peers& peers, Phase phase) {
  if (phase == Phase::kEnd) __threadfence_system();
  __syncthreads();
  const int member = threadIdx.y * blockDim.x + threadIdx.x;
  if (member < peers.size && member != peers.rank) {
    uint32_t* theirs = flag_of(peers.flags[member], phase, peers.rank);
    const uint32_t* ours = flag_of(peers.flags[peers.rank], phase, member);
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(theirs), "r"(peers.sequence) : "memory");
    uint32_t seen;
    for (int rounds = 1;; ++rounds) {
      asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(seen) : "l"(ours) : "memory");
      if (int32_t(seen - peers.sequence) >= 0) break;
      if (rounds % 4096 == 0 && *static_cast<const volatile int*>(peers.aborted) != 0) break;
    }
  }
  __syncthreads();
}

template <class T>
__device__ __forceinline__ T* at(T* ours, const Peers& peers, int member) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(ours) + peers.shift[member]);
}

// Members whose memory is read before the first of it is added.
template <int P>
inline constexpr int kTogether = P < 4 ? P : 4;

// Calls `with` with a null pointer to the element type and the number of members as a type.
template <class With>
void by_type(int dtype, int size, With with) {
  const auto by_size = [&](auto* type) {
    if (size == 2) return with(type, std::integral_constant<int, 2>());
    if (size == 4) return with(type, std::integral_constant<int, 4>());
    with(type, std::integral_constant<int, 8>());
  };
  if (dtype == MB_F32) {
    by_size(static_cast<float*>(nullptr));
  } else {
    by_size(static_cast<bf16*>(nullptr));
  }
}

}  // namespace mb::cuda::kernels
