// Compares what the members of a group are about to call, before they do: a collective that they disagree about would
// hang, or give garbage. Small messages of its own, which every call then waits for: for debugging
// (dist.check_collectives).
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "node/flight_recorder.h"

namespace mb::node {

struct Device;

class CallCheck {
 public:
  CallCheck(const Device& device, mb_comm* comm, std::string group, int rank, std::vector<int32_t> ranks);
  ~CallCheck();
  CallCheck(const CallCheck&) = delete;
  CallCheck& operator=(const CallCheck&) = delete;

  // MB_OK; kDiffers, with both ranks and calls in `error`; or the status of what compares. Every member calls it, or
  // makes p2p calls that compare_transfers looks at.
  int compare(int stream, const Call& call, std::string* error);
  // Of an all to all also what each sends the other: counts [2 * size], sent and received.
  int compare_counts(int stream, const int64_t* sent, const int64_t* received, std::string* error);
  // Of transfers: what is sent to each peer and what it expects. The peers call it.
  int compare_transfers(int stream, const mb_p2p* transfers, int count, std::string* error);

  static constexpr int kDiffers = -1;

 private:
  // Sends what is in `said` of each transfer that is a send, and puts what comes where the others stand.
  int exchange(int stream, std::vector<mb_p2p>* transfers, void* said);
  int gather(int stream, const void* mine, int64_t bytes);
  int reserve(int64_t bytes);
  std::string rank_name(int member) const { return "rank " + std::to_string(ranks_[static_cast<size_t>(member)]); }
  std::string describe(int member, const Call& call) const;
  std::string differ(const Call& mine, int peer, const Call& theirs) const;

  const Device& device_;
  mb_comm* const comm_;
  const std::string group_;
  const int rank_;
  const std::vector<int32_t> ranks_;
  void* memory_ = nullptr;  // of the device
  int64_t reserved_ = 0;
  std::vector<char> gathered_;  // what each member said
};

}  // namespace mb::node
