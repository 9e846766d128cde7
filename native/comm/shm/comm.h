// A communicator: a member's view of a segment, its waits, failures and collectives.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "comm/shm/segment.h"
#include "core/abi.h"
#include "core/all_to_all.h"

namespace mb::shm {

enum Op : uint32_t { kNone, kAllReduce, kReduceScatter, kAllGather, kBroadcast, kBarrier, kP2p, kAllToAll, kCreate };
const char* op_name(uint32_t op);

class Comm {
 public:
  // Joins the group and returns once every member has; `out` is set on success only.
  static int create(const Joining& who, Comm** out);
  ~Comm();
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  // The functions of mb_comm_table.
  int all_reduce(const mb_buf& in, const mb_buf& out, int64_t n, int op);
  int reduce_scatter(const mb_buf& in, const mb_buf& out, int64_t n, int op);
  int all_gather(const mb_buf& in, const mb_buf& out, int64_t n);
  int broadcast(const mb_buf& buf, int64_t n, int root);
  int barrier();
  int p2p(const mb_p2p* ops, int count) { return exchange(kP2p, ops, count); }
  int all_to_all(const AllToAll& call);
  void abort();
  int size() const { return size_; }
  int check();

 private:
  explicit Comm(const Joining& who);
  static constexpr uint8_t kSending = 1, kReceiving = 2;
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

  // ---- Failures. The first one of any member is written to the segment and is then what all of them return.
  bool broken() const { return segment_.header->broken.load(std::memory_order_acquire) != 0; }
  int broken_error();
  int break_with(int code, const std::string& text);
  std::string where() const;                                             // "group tp [2,3], in all_reduce"
  bool ended() const { return thread_ended_ && thread_ended_->load(); }  // this member's thread
  bool dead(int r) const;
  std::string rank_name(int rank) const { return "rank " + std::to_string(ranks_[rank]); }

  // ---- Waits: spin while that has paid recently, then sleep and look for dead peers and the time.
  // done() tells whether the wait is over; needs(r), whether member r holds it up.
  template <typename Done, typename Needs>
  int wait(Signal& signal, Done done, Needs needs);
  template <typename Needs>
  int check_peers(Needs needs, bool* held_up);
  template <typename Needs>
  int time_out(int64_t waited_ns, Needs needs);

  // ---- Collectives
  int begin(Op op, int dtype, int argument, int64_t n);
  int end();
  int synchronise();  // all members have arrived; the first of a collective also compares their calls
  int compare_calls();
  int next_half() { return static_cast<int>(chunks_++ & 1); }
  int argument_error(const std::string& found);
  int check_elements(const mb_buf& buf, int64_t n, const char* what);
  int check_pair(const mb_buf& in, int64_t in_n, const mb_buf& out, int64_t out_n);
  int check_reduce(int dtype, int op);

  // ---- Point to point
  int exchange(Op op, const mb_p2p* ops, int count);
  int plan_transfers(const mb_p2p* ops, int count);
  int transfer_to_self();
  int progress(bool* moved, bool* finished);
  bool send_some(Transfer& t);
  int receive_some(Transfer& t, bool* moved);
  bool held_up_by(int peer) const;
  void ring_bell(int peer);

  Segment segment_;
  std::string name_;
  std::vector<int32_t> ranks_;
  int rank_;
  int size_;
  int64_t timeout_ns_;
  const std::atomic<bool>* thread_ended_;
  Op current_ = kNone;
  uint64_t collectives_ = 0;  // begun
  uint64_t arrived_ = 0;      // synchronisations
  uint64_t chunks_ = 0;
  bool compared_ = false;  // the calls of the current collective
  int spins_;
  std::vector<Transfer> transfers_;  // of the current p2p; kept for its capacity
  uint8_t turn_[kMaxRanks];          // kSending | kReceiving: what p2p waits for, by peer
};

}  // namespace mb::shm
