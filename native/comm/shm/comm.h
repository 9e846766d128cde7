// A communicator: a member's view of a segment, its waits, failures and collectives.
#pragma once
#include <stdint.h>

#include <string>

#include "comm/communicator.h"
#include "comm/shm/segment.h"

namespace mb::shm {

using comm::Call;
using comm::Communicator;

class Comm : public Communicator {
 public:
  // Joins the group and returns once every member has; `out` is set on success only.
  static int create(const Joining& who, Communicator** out);
  ~Comm() override;
  int check() override;

 private:
  explicit Comm(const Joining& who);
  static constexpr uint8_t kSending = 1, kReceiving = 2;

  // ---- Failures. The first one of any member is written to the segment and is then what all of them return.
  bool broken() const { return segment_.header->broken.load(std::memory_order_acquire) != 0; }
  int broken_error();
  int break_with(int code, const std::string& text) override;
  bool dead(int r) const;

  // ---- Waits: spin while that has paid recently, then sleep and look for dead peers and the time.
  // done() tells whether the wait is over; needs(r), whether member r holds it up.
  template <typename Done, typename Needs>
  int wait(Signal& signal, Done done, Needs needs);
  template <typename Needs>
  int check_peers(Needs needs, bool* held_up);
  template <typename Needs>
  int time_out(int64_t waited_ns, Needs needs);

  // ---- Collectives
  int begin(Op op, int dtype, int argument, int64_t n) override;
  int end() override;
  int move_all_reduce(int dtype, int op, const char* from, char* to, int64_t n) override;
  int move_reduce_scatter(int dtype, int op, const char* from, char* to, int64_t n) override;
  int move_all_gather(const char* from, char* to, int64_t bytes) override;
  int move_broadcast(char* data, int64_t bytes, int root) override;
  int meet() override;
  int synchronise();  // all members have arrived; the first of a collective also compares their calls
  int compare_calls();
  int next_half() { return static_cast<int>(chunks_++ & 1); }

  // ---- Point to point
  int exchange(Op op, const mb_p2p* ops, int count) override;
  int progress(bool* moved, bool* finished);
  bool send_some(Transfer& t);
  int receive_some(Transfer& t, bool* moved);
  bool held_up_by(int peer) const;
  void ring_bell(int peer);

  Segment segment_;
  uint64_t collectives_ = 0;  // begun
  uint64_t arrived_ = 0;      // synchronisations
  uint64_t chunks_ = 0;
  bool compared_ = false;  // the calls of the current collective
  int spins_;
  uint8_t turn_[kMaxRanks];  // kSending | kReceiving: what p2p waits for, by peer
};

}  // namespace mb::shm
