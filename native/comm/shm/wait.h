// Comm's waits. Included by the files that wait.
#pragma once
#include <sched.h>
#include <stdio.h>

#include <algorithm>

#include "comm/shm/comm.h"
#include "core/error.h"

namespace mb::shm {

constexpr int kMinSpins = 32;
constexpr int kMaxSpins = 4096;  // about 50 to 100 us
// Where ranks outnumber cores, giving a peer the core at once is several times cheaper than sleeping and being woken.
// No more than this: yielding over and over loses the core to whatever else computes on the machine.
constexpr int kYields = 2;
// A sleeper looks for dead peers this often, so a death is known within about that.
constexpr int64_t kPeerCheckNs = 10'000'000;

template <typename Done, typename Needs>
int Comm::wait(Signal& signal, Done done, Needs needs) {
  for (int i = 0; i < spins_; i++) {
    if (done()) {
      if (i * 2 > spins_) spins_ = std::min(spins_ * 2, kMaxSpins);
      return MB_OK;
    }
    cpu_pause();
  }
  // Spinning did not pay: either the peers are late or they need this core to arrive.
  spins_ = std::max(spins_ / 2, kMinSpins);
  for (int i = 0; i < kYields; i++) {
    sched_yield();
    if (done()) return MB_OK;
  }
  const int64_t start = now_ns();
  int64_t checked = start;
  while (true) {
    signal.sleepers.fetch_add(1);
    const uint32_t seen = signal.word.load();
    if (!done() && !broken()) futex_wait(&signal.word, seen, kPeerCheckNs);
    signal.sleepers.fetch_sub(1);
    if (done()) return MB_OK;
    if (broken()) return broken_error();
    if (ended()) return fail(MB_ERR_PEER, "the thread of %s has ended (%s)", rank_name(rank_).c_str(), where().c_str());
    const int64_t now = now_ns();
    if (now - checked < kPeerCheckNs) continue;
    bool held_up = false;
    const int status = check_peers(needs, &held_up);
    if (status != MB_OK) return status;
    if (!held_up) return MB_OK;  // the last to arrive died between arriving and saying so
    if (now - start > timeout_ns_) return time_out(now - start, needs);
    checked = now;
  }
}

template <typename Needs>
int Comm::check_peers(Needs needs, bool* held_up) {
  std::string gone, left;
  for (int r = 0; r < size_; r++) {
    if (r == rank_ || !needs(r)) continue;
    const Member& peer = segment_.member(r);
    const bool died = dead(r);
    const uint32_t state = peer.state.load(std::memory_order_acquire);
    // Whatever it did before it went counts, so look at it again now that it can do no more.
    if (!needs(r)) continue;
    *held_up = true;
    if (died) {
      const std::string how = state == kEnded ? "its thread ended" : "pid " + std::to_string(peer.process.pid);
      gone += (gone.empty() ? "" : ", ") + rank_name(r) + " died (" + how + ")";
    }
    if (state == kLeft) left += (left.empty() ? "" : ", ") + rank_name(r) + " destroyed its communicator";
  }
  if (!gone.empty()) return break_with(MB_ERR_PEER, gone + " (" + where() + ")");
  if (!left.empty()) return break_with(MB_ERR_PEER, left + " (" + where() + ")");
  return MB_OK;
}

template <typename Needs>
int Comm::time_out(int64_t waited_ns, Needs needs) {
  std::string missing;
  for (int r = 0; r < size_; r++) {
    if (r == rank_ || !needs(r)) continue;
    const uint32_t op = segment_.member(r).current.load(std::memory_order_relaxed);
    const bool absent = segment_.member(r).state.load(std::memory_order_relaxed) < kPresent;
    if (!missing.empty()) missing += ", ";
    missing += rank_name(r) + (absent ? "" : op == kNone ? " (in no call)" : std::string(" (in ") + op_name(op) + ")");
  }
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%.1f s", static_cast<double>(waited_ns) * 1e-9);
  return break_with(MB_ERR_TIMEOUT, std::string(op_name(current_)) + " timed out: " + rank_name(rank_) +
                                        " has waited " + seconds + " for " + missing + " (" + where() + ")");
}

}  // namespace mb::shm
