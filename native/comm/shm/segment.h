// The memory that the members of a group share: its layout, its identity, making it and joining it.
//
// It is an unnamed file in /dev/shm (O_TMPFILE). Rank 0 opens it; the others open /proc/<pid of rank 0>/fd/<n>, which
// the group's id names, and rank 0 closes its descriptor once all have mapped it. So there is never a name that could
// leak, whatever kills whom and when, while /dev/shm's limit still applies. Opening a descriptor through /proc needs
// the same user and PID namespace; Yama's ptrace_scope does not restrict it (it limits attaching, not reading).
#pragma once
#include <stdint.h>

#include <atomic>
#include <string>

#include "comm/communicator.h"
#include "comm/shm/futex.h"
#include "comm/shm/process.h"

namespace mb::shm {

using comm::Call;
using comm::Joining;
using comm::kMaxRanks;

// A member copies what it contributes to a collective through its slot, one chunk at a time, in two halves by turns.
// With the rings below this makes 512 KiB a member: a run of 8 ranks in 10 groups each fits a container's usual 64 MiB,
// and a chunk stays in a core's L2 cache.
constexpr int64_t kChunkBytes = 128 << 10;
// A member's share of memory for incoming messages, divided among its senders.
constexpr int64_t kRingsBytes = 256 << 10;
constexpr int64_t kMinRingBytes = 4 << 10;

// kEnded: its thread ended without leaving. That a process ended, nobody can write; the others see it (process.h).
enum MemberState : uint32_t { kAbsent = 0, kAttaching = 1, kPresent = 2, kLeft = 3, kEnded = 4 };

struct Member {
  // Written by the member at each synchronisation, read by all: one cache line.
  alignas(64) std::atomic<uint64_t> arrived;  // synchronisations reached
  Call call[2];                               // by parity of the collective's number
  alignas(64) std::atomic<uint32_t> current;  // Op it is in, 0 for none
  Signal bell;                                // rung by peers that sent to it, or received from it
  alignas(64) std::atomic<uint32_t> state;    // MemberState; the rest of the line is valid from kPresent on
  ProcessId process;
};

// One direction between two members: bytes ever written and ever read; the ring holds the difference.
struct Channel {
  alignas(64) std::atomic<uint64_t> head;
  alignas(64) std::atomic<uint64_t> tail;
};

struct Header {
  std::atomic<uint32_t> ready;  // set last by rank 0
  int32_t size;
  int64_t bytes;
  uint8_t token[16];
  char name[64];
  int32_t ranks[kMaxRanks];
  Signal attached;                             // how many have joined
  alignas(64) std::atomic<uint64_t> arrivals;  // over all members and synchronisations
  Signal round;                                // low bits of the latest complete synchronisation
  // The first failure, which is everybody's: 0 none, 1 being written, 2 code and text are valid.
  alignas(64) std::atomic<uint32_t> broken;
  int32_t broken_code;
  char broken_text[760];
  Member members[kMaxRanks];
};

// A mapped segment. Plain: copies share the mapping, and unmap() is called once.
class Segment {
 public:
  Header* header = nullptr;

  // Bytes for a group of `size` ranks.
  static int64_t bytes(int size);

  Member& member(int rank) const { return header->members[rank]; }
  char* slot(int rank, int half) const { return slots_ + (int64_t{rank} * 2 + half) * kChunkBytes; }
  Channel& channel(int from, int to) const { return channels_[pair(from, to)]; }
  char* ring(int from, int to) const { return rings_ + pair(from, to) * ring_bytes_; }
  int64_t ring_bytes() const { return ring_bytes_; }

  // Maps the group's segment (rank 0: makes it, the others wait for that) and checks that it was made for the same
  // group. On a failure `header` is null, or what has been mapped, for others to be told.
  int map(const Joining& who);
  // Enters this process as a member. Does not wait for the others.
  int enter(const Joining& who);
  void unmap();

 private:
  int64_t pair(int from, int to) const { return int64_t{to} * (size_ - 1) + from - (from > to); }
  int map_file(int fd, const Joining& who);  // 0, or errno
  int make(int fd, const Joining& who);
  int await(int fd, const Joining& who);

  int size_ = 0;
  char* slots_ = nullptr;
  Channel* channels_ = nullptr;
  char* rings_ = nullptr;
  int64_t ring_bytes_ = 0;
};

// Opens the file of a new group and describes it in the id; this process keeps it open until it joins as rank 0.
int make_id(uint8_t id[128]);
// Closes rank 0's descriptor, once all have joined or it has given up waiting for them. Harmless when it is not this
// process's.
void release_id(const uint8_t id[128]);

}  // namespace mb::shm
