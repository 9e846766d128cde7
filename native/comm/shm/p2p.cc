// Point to point: each ordered pair of members has a ring. A message is a 64-byte header with its size, then its bytes
// padded to 64, so that headers never wrap. All operations of a call advance by turns, those with one peer in one
// direction in order; when none can, the member sleeps on its bell, which peers ring whenever they fill or empty a ring
// of its.
#include <string.h>

#include <algorithm>

#include "comm/shm/wait.h"

namespace mb::shm {
namespace {

constexpr uint64_t kLine = 64;

uint64_t padded(int64_t bytes) { return (static_cast<uint64_t>(bytes) + kLine - 1) / kLine * kLine; }

}  // namespace

void Comm::ring_bell(int peer) {
  Signal& bell = segment_.member(peer).bell;
  bell.word.fetch_add(1);
  wake(bell);
}

// Writes what fits. Pieces are a quarter of the ring, so that the receiver can read one while the next is written.
bool Comm::send_some(Transfer& t) {
  Channel& channel = segment_.channel(rank_, t.peer);
  char* ring = segment_.ring(rank_, t.peer);
  const uint64_t size = segment_.ring_bytes();
  bool moved = false;
  while (!t.done) {
    uint64_t head = channel.head.load(std::memory_order_relaxed);
    uint64_t room = size - (head - channel.tail.load(std::memory_order_acquire));
    if (room == 0) break;
    if (!t.started) {
      memcpy(ring + head % size, &t.bytes, sizeof t.bytes);
      t.started = true;
      head += kLine;
      room -= kLine;
    }
    const uint64_t piece = std::min({padded(t.left), room, size / 4, size - head % size});
    const auto bytes = std::min(static_cast<int64_t>(piece), t.left);
    if (bytes > 0) memcpy(ring + head % size, t.at, bytes);
    t.at += bytes;
    t.left -= bytes;
    t.done = t.left == 0;
    channel.head.store(head + piece, std::memory_order_release);
    ring_bell(t.peer);
    moved = true;
  }
  return moved;
}

int Comm::receive_some(Transfer& t, bool* moved) {
  Channel& channel = segment_.channel(t.peer, rank_);
  const char* ring = segment_.ring(t.peer, rank_);
  const uint64_t size = segment_.ring_bytes();
  while (!t.done) {
    uint64_t tail = channel.tail.load(std::memory_order_relaxed);
    uint64_t filled = channel.head.load(std::memory_order_acquire) - tail;
    if (filled == 0) break;
    if (!t.started) {
      int64_t sent;
      memcpy(&sent, ring + tail % size, sizeof sent);
      if (sent != t.bytes) {
        return break_with(MB_ERR_MISMATCH, wrong_size(t.peer, sent, rank_, t.bytes));
      }
      t.started = true;
      tail += kLine;
      filled -= kLine;
    }
    const uint64_t piece = std::min({padded(t.left), filled, size / 4, size - tail % size});
    const auto bytes = std::min(static_cast<int64_t>(piece), t.left);
    if (bytes > 0) memcpy(t.at, ring + tail % size, bytes);
    t.at += bytes;
    t.left -= bytes;
    t.done = t.left == 0;
    channel.tail.store(tail + piece, std::memory_order_release);
    ring_bell(t.peer);
    *moved = true;
  }
  return MB_OK;
}

// One pass over all operations. Behind an unfinished one, those with the same peer and direction wait their turn.
int Comm::progress(bool* moved, bool* finished) {
  std::fill_n(turn_, size_, uint8_t{0});
  *finished = true;
  for (Transfer& t : transfers_) {
    const uint8_t direction = t.send ? kSending : kReceiving;
    if (t.done || (turn_[t.peer] & direction)) continue;
    if (t.send) {
      if (send_some(t)) *moved = true;
    } else {
      const int status = receive_some(t, moved);
      if (status != MB_OK) return status;
    }
    if (!t.done) {
      turn_[t.peer] |= direction;
      *finished = false;
    }
  }
  return MB_OK;
}

// After a pass: whether an operation with `peer` is unfinished and the peer has done nothing about it yet.
bool Comm::held_up_by(int peer) const {
  auto filled = [&](int from, int to) {
    const Channel& channel = segment_.channel(from, to);
    return channel.head.load(std::memory_order_acquire) - channel.tail.load(std::memory_order_acquire);
  };
  return ((turn_[peer] & kSending) && filled(rank_, peer) == static_cast<uint64_t>(segment_.ring_bytes())) ||
         ((turn_[peer] & kReceiving) && filled(peer, rank_) == 0);
}

int Comm::exchange(Op op, const mb_p2p* ops, int count) {
  current_ = op;
  if (broken()) return broken_error();
  segment_.member(rank_).current.store(op, std::memory_order_relaxed);
  int status = plan_transfers(ops, count);
  if (status == MB_OK) status = transfer_to_self();
  Signal& bell = segment_.member(rank_).bell;
  while (status == MB_OK) {
    const uint32_t heard = bell.word.load(std::memory_order_acquire);
    bool moved = false, finished;
    status = progress(&moved, &finished);
    if (status != MB_OK) break;
    if (finished) return end();
    if (moved) continue;
    status = wait(
        bell, [&] { return bell.word.load(std::memory_order_acquire) != heard; }, [&](int r) { return held_up_by(r); });
  }
  return status;
}

}  // namespace mb::shm
