#include "comm/shm/comm.h"

#include <stdio.h>
#include <string.h>

#include <chrono>
#include <thread>

#include "comm/shm/wait.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/host.h"

namespace mb::shm {

// How long the text of a failure may take from its announcement on.
constexpr int64_t kReasonNs = 1'000'000'000;

Comm::Comm(const Joining& who) : Communicator(who), spins_(who.size > usable_cores() ? kMinSpins : kMaxSpins) {}

Comm::~Comm() {
  if (!segment_.header) return;
  Member& me = segment_.member(rank_);
  uint32_t present = kPresent;
  me.state.compare_exchange_strong(present, ended() ? kEnded : kLeft);
  segment_.unmap();
}

int Comm::create(const Joining& who, Communicator** out) {
  Comm* comm = new Comm(who);
  comm->current_ = kCreate;
  int status = comm->segment_.map(who);
  if (status == MB_OK) status = comm->segment_.enter(who);
  if (status != MB_OK) {
    const std::string text = last_error();
    if (comm->segment_.header) status = comm->break_with(status, text);
  } else {
    Header* header = comm->segment_.header;
    comm->segment_.member(who.rank).current.store(kCreate, std::memory_order_relaxed);
    auto joined = [&](int r) { return comm->segment_.member(r).state.load(std::memory_order_acquire) >= kPresent; };
    auto all_joined = [&] { return header->attached.word.load(std::memory_order_acquire) == uint32_t(who.size); };
    // A member that has joined and died is found too: without it the group is of no use.
    status = comm->wait(header->attached, all_joined, [&](int r) { return !joined(r) || comm->dead(r); });
  }
  // Where rank 0 could not allocate, its empty file stays open as long as the process lives, to tell those that come
  // later what was wrong.
  if (who.rank == 0 && comm->segment_.header) release_id(who.id);
  if (status != MB_OK) {
    delete comm;
    return status;
  }
  comm->end();
  *out = comm;
  return MB_OK;
}

// ---- Failures ------------------------------------------------------------------------------------------------------

bool Comm::dead(int r) const {
  const Member& peer = segment_.member(r);
  const uint32_t state = peer.state.load(std::memory_order_acquire);
  return state == kEnded || (state == kPresent && !process_alive(peer.process));
}

int Comm::break_with(int code, const std::string& text) {
  Header* header = segment_.header;
  uint32_t none = 0;
  if (header->broken.compare_exchange_strong(none, 1)) {
    header->broken_code = code;
    snprintf(header->broken_text, sizeof header->broken_text, "%s", text.c_str());
    header->broken.store(2);
    // Sleepers that this misses, because they are just going to sleep, wake by themselves for their next peer check.
    wake(header->attached);
    wake(header->round);
    for (int r = 0; r < size_; r++) wake(segment_.member(r).bell);
  }
  return broken_error();
}

int Comm::broken_error() {
  const Header* header = segment_.header;
  // The member that writes the text may wait for a core, and could die while it does.
  for (const int64_t start = now_ns(); header->broken.load(std::memory_order_acquire) != 2;) {
    if (now_ns() - start > kReasonNs) {
      return fail(MB_ERR_PEER, "a member of group %s failed and died before it could say why", name_.c_str());
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return fail(header->broken_code, "%s", header->broken_text);
}

int Comm::check() { return broken() ? broken_error() : MB_OK; }

// ---- Synchronisation -----------------------------------------------------------------------------------------------

int Comm::begin(Op op, int dtype, int argument, int64_t n) {
  current_ = op;
  if (broken()) return broken_error();
  Member& me = segment_.member(rank_);
  me.current.store(op, std::memory_order_relaxed);
  // The other parity: members that are behind may still compare the previous collective's calls. They cannot be two
  // behind, since each collective begins with a synchronisation.
  me.call[++collectives_ & 1] = {op, dtype, argument, 0, n};
  compared_ = false;
  return MB_OK;
}

int Comm::end() {
  segment_.member(rank_).current.store(kNone, std::memory_order_relaxed);
  return MB_OK;
}

int Comm::synchronise() {
  Header* header = segment_.header;
  const uint64_t target = ++arrived_;
  segment_.member(rank_).arrived.store(target, std::memory_order_release);
  if (header->arrivals.fetch_add(1, std::memory_order_acq_rel) + 1 == target * static_cast<uint64_t>(size_)) {
    header->round.word.store(static_cast<uint32_t>(target));
    wake(header->round);
  } else {
    auto done = [&] {
      return static_cast<int32_t>(header->round.word.load(std::memory_order_acquire) - static_cast<uint32_t>(target)) >=
             0;
    };
    auto missing = [&](int r) { return segment_.member(r).arrived.load(std::memory_order_acquire) < target; };
    const int status = wait(header->round, done, missing);
    if (status != MB_OK) return status;
  }
  return compared_ ? MB_OK : compare_calls();
}

int Comm::compare_calls() {
  compared_ = true;
  const auto call = [&](int r) -> const Call& { return segment_.member(r).call[collectives_ & 1]; };
  for (int r = 0; r < size_; r++) {
    if (call(r) != call(rank_)) return break_with(MB_ERR_MISMATCH, mismatch(call(rank_), r, call(r)));
  }
  return MB_OK;
}

}  // namespace mb::shm
