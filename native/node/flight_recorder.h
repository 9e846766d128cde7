// The last collectives of this process: which, in which group, and whether they have finished. They are written to
// memory that the launcher made and can read (src/job/shared/flight-record.ts), so that what a rank was in is known
// also where it hangs, is stopped or is dead. Plain: what is written is never read here, but for counters.
#pragma once
#include <stdint.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/abi.h"

namespace mb::node {

// What is recorded beside the ops of core/comm_ops.def, which follow from kFusedOps on.
enum class Collective : int16_t {
  kCreate,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kBarrier,
  kTransfers,
  kAllToAll,
  kShare,
  kUnshare,
  kFusedOps
};

// A call, as all members must make it.
struct Call {
  Collective op;
  int32_t dtype = 0;
  int32_t argument = 0;  // mb_reduce, or the root
  int64_t count = 0;     // elements of a rank; bytes of transfers
};

// As the ops of comm_ops.def are called, and those of the table.
const char* name_of(Collective op);

}  // namespace mb::node

namespace mb::node::flight {

constexpr uint32_t kMagic = 0x5246424d;  // "MBFR"
constexpr uint32_t kVersion = 1;
constexpr int kGroups = 64;
constexpr int kEntries = 32;
constexpr int kMembers = 64;   // whose ranks, and messages, are kept
constexpr int kTransfers = 4;  // of a call

// The layout that the launcher reads: little-endian, as written here. Times are CLOCK_MONOTONIC's nanoseconds.
struct Transfer {
  int32_t peer;     // in the group
  uint32_t number;  // 2 * n + 1 for the n-th message to the peer, 2 * n for the n-th from it; n from 1
};

struct Entry {
  int64_t number;  // of the group's collectives, or of its calls with transfers, each from 1
  int64_t entered_ns;
  int64_t ended_ns;     // when the call returned, 0 before
  int64_t device_call;  // done once the device has finished so many of the group's calls
  int64_t count;
  int16_t op;
  int8_t dtype;
  int8_t status;  // mb_status, or -1: it differed from another member's
  int32_t argument;
  uint32_t transfers;  // of the call; the first of them follow
  uint32_t written;    // 1: the entry is whole
  Transfer transfer[kTransfers];
  int64_t reserved;
};
static_assert(sizeof(Entry) == 96);

struct Group {
  char name[48];
  uint64_t id;  // the same for all members, of no other group; 0: nothing is here
  int32_t size;
  int32_t rank;
  int64_t collectives;  // entered
  int64_t exchanges;    // calls with transfers entered
  int64_t finished;     // calls that the device has finished, -1 where a call has when it returns
  int64_t finished_ns;  // when that was last seen to grow
  int64_t entries;      // ever written: entry i is at i % kEntries
  uint32_t live;
  uint32_t reserved;
  int32_t ranks[kMembers];
  uint32_t sent[kMembers];  // messages to and from each, of the calls entered
  uint32_t received[kMembers];
  Entry entry[kEntries];
};
static_assert(sizeof(Group) == 48 + 8 + 8 + 5 * 8 + 8 + 3 * 4 * kMembers + kEntries * sizeof(Entry));

struct Header {
  uint32_t magic, version, groups, entries;
  int64_t phase_ns;  // since when
  int64_t step;
  char phase[96];  // what the rank does, in words; empty before it has said so
  // What the numbers in the entries mean.
  char ops[24][24];
  char dtypes[8][8];
};
static_assert(sizeof(Header) == 768);

struct Record {
  Header header;
  Group group[kGroups];
};

}  // namespace mb::node::flight

namespace mb::node {

class FlightRecorder {
 public:
  FlightRecorder();
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  // Goes on in the file's memory. False where that cannot be had, and once there are groups.
  bool move_to(int file);
  // A place for a group; null where as many as there is room for are in use.
  flight::Group* add(const uint8_t id[128], const std::string& name, int rank, const std::vector<int32_t>& ranks,
                     bool counts_on_device);
  void phase(int64_t step, const std::string& words);
  const flight::Record* record() const { return record_; }

 private:
  flight::Record* record_;
  bool shared_ = false;
  bool used_ = false;
};

// A call while it is made: entered as this is made, and ended. Nothing where `group` is null.
class FlightCall {
 public:
  FlightCall(flight::Group* group, const Call& call, const mb_p2p* transfers = nullptr, int count = 0);
  // device_call: how many calls the group's members have given the device with this one
  void end(int status, int64_t device_call = 0);

 private:
  flight::Group* group_;
  flight::Entry* entry_ = nullptr;
};

// The device has finished so many calls. By one thread at a time.
void flight_finished(flight::Group* group, int64_t calls);

}  // namespace mb::node
