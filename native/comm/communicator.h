// What the communicators of the CPU have in common: who is in the group, what is asked of the arguments, and the list
// of transfers of a call. How bytes get from one member to another is the derived class's: shm within a node, tcp
// between.
#pragma once
#include <stdint.h>
#include <time.h>

#include <atomic>
#include <string>
#include <vector>

#include "core/abi.h"
#include "core/all_to_all.h"

namespace mb::comm {

constexpr int kMaxRanks = 64;

// What a member called. All members of a collective must say the same.
struct Call {
  uint32_t op;  // Communicator::Op
  int32_t dtype;
  int32_t argument;  // mb_reduce, or the root
  int32_t reserved;
  int64_t count;
  bool operator==(const Call&) const = default;
};

// Who wants to join what.
struct Joining {
  const uint8_t* id;
  const char* name;
  int rank;
  int size;
  const int32_t* ranks;
  int64_t timeout_ns;
  const std::atomic<bool>* thread_ended;  // null: the member's life is its process's
  bool ended() const { return thread_ended && thread_ended->load(); }
};

// "group tp [0,1,2,3]", for error texts.
std::string group_text(const char* name, const int32_t* ranks, int size);

inline int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

inline char* bytes_of(const mb_buf& buf) { return static_cast<char*>(buf.ptr); }
void copy_bytes(char* to, const char* from, int64_t bytes);

class Communicator {
 public:
  enum Op : uint32_t { kNone, kAllReduce, kReduceScatter, kAllGather, kBroadcast, kBarrier, kP2p, kAllToAll, kCreate };
  static const char* op_name(uint32_t op);

  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // The functions of mb_comm_table.
  int all_reduce(const mb_buf& in, const mb_buf& out, int64_t n, int op);
  int reduce_scatter(const mb_buf& in, const mb_buf& out, int64_t n, int op);
  int all_gather(const mb_buf& in, const mb_buf& out, int64_t n);
  int broadcast(const mb_buf& buf, int64_t n, int root);
  int barrier();
  int p2p(const mb_p2p* ops, int count) { return exchange(kP2p, ops, count); }
  int all_to_all(const AllToAll& call);
  virtual void abort();
  int size() const { return size_; }
  virtual int check() = 0;

 protected:
  explicit Communicator(const Joining& who);
  // One operation of a p2p call.
  struct Transfer {
    char* at;      // what is left: next byte
    int64_t left;  // and how many
    int64_t bytes;
    int32_t peer;
    bool send;
    bool started;  // its header has been written or read
    bool done;
  };

  // ---- Of the derived class. What collectives are given is checked, and the group has more than one member.
  virtual int begin(Op op, int dtype, int argument, int64_t n) = 0;
  virtual int end() = 0;
  virtual int move_all_reduce(int dtype, int op, const char* from, char* to, int64_t n) = 0;
  virtual int move_reduce_scatter(int dtype, int op, const char* from, char* to, int64_t n) = 0;
  virtual int move_all_gather(const char* from, char* to, int64_t bytes) = 0;
  virtual int move_broadcast(char* data, int64_t bytes, int root) = 0;
  virtual int meet() = 0;
  virtual int exchange(Op op, const mb_p2p* ops, int count) = 0;
  // The first failure of any member is then what all of them return.
  virtual int break_with(int code, const std::string& text) = 0;

  std::string where() const;                                             // "group tp [2,3], in all_reduce"
  bool ended() const { return thread_ended_ && thread_ended_->load(); }  // this member's thread
  std::string rank_name(int rank) const { return "rank " + std::to_string(ranks_[rank]); }
  std::string describe(int rank, const Call& call) const;  // "rank 2 called all_reduce of 9 f32, sum"
  std::string mismatch(const Call& mine, int other, const Call& theirs) const;
  std::string wrong_size(int from, int64_t sent, int to, int64_t expected) const;
  int argument_error(const std::string& found);
  int check_elements(const mb_buf& buf, int64_t n, const char* what);
  int check_pair(const mb_buf& in, int64_t in_n, const mb_buf& out, int64_t out_n);
  int check_reduce(int dtype, int op);
  int plan_transfers(const mb_p2p* ops, int count);
  int transfer_to_self();

  std::string name_;
  std::vector<int32_t> ranks_;
  int rank_;
  int size_;
  int64_t timeout_ns_;
  const std::atomic<bool>* thread_ended_;
  Op current_ = kNone;
  std::vector<Transfer> transfers_;  // of the current p2p; kept for its capacity
};

}  // namespace mb::comm
