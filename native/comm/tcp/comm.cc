#include "comm/tcp/comm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "comm/tcp/socket.h"
#include "core/error.h"

namespace mb::tcp {
namespace {

using comm::now_ns;

// The frame of a member's last message, which says why it failed.
constexpr uint32_t kFailed = 0xffff'ffff;
constexpr int64_t kMaxReason = 760;
constexpr int64_t kReasonNs = 1'000'000'000;
constexpr int kLookMs = 50;

}  // namespace

Comm::Comm(const Joining& who, const std::vector<int>& sockets) : Communicator(who) {
  for (const int fd : sockets) peers_.push_back({.fd = fd, .out = {}, .in = {}});
}

Comm::~Comm() {
  for (const Peer& peer : peers_) {
    if (peer.fd >= 0) close(peer.fd);
  }
}

int Comm::create(const Joining& who, Communicator** out) {
  std::vector<int> sockets;
  const int status = join(who, &sockets);
  if (status == MB_OK) *out = new Comm(who, sockets);
  return status;
}

// ---- Failures ------------------------------------------------------------------------------------------------------

bool Comm::record(int code, const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (broken_) return false;
  code_ = code;
  text_ = text;
  broken_ = true;
  return true;
}

int Comm::broken_error() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return fail(code_, "%s", text_.c_str());
}

int Comm::check() { return broken_ ? broken_error() : MB_OK; }

// By any thread, while another may be in the middle of a message: the peers see that the connection ends.
void Comm::abort() {
  if (!record(MB_ERR_PEER,
              rank_name(rank_) + " aborted (" + comm::group_text(name_.c_str(), ranks_.data(), size_) + ")"))
    return;
  for (const Peer& peer : peers_) {
    if (peer.fd >= 0) shutdown(peer.fd, SHUT_RDWR);
  }
}

int Comm::break_with(int code, const std::string& text) {
  if (!record(code, text)) return broken_error();
  const auto bytes = std::min(static_cast<int64_t>(text.size()), kMaxReason);
  Frame frame{{kFailed, code, 0, 0, 0}, bytes};
  for (const Peer& peer : peers_) {
    if (peer.fd < 0) continue;
    iovec parts[] = {{&frame, sizeof frame}, {const_cast<char*>(text.data()), static_cast<size_t>(bytes)}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (!peer.in_message) (void)!sendmsg(peer.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    // No more than that: closing it while there is something to read would take the reason back.
    shutdown(peer.fd, SHUT_WR);
  }
  return broken_error();
}

// Names all whose connections have ended: one of them may have failed because another did, and say so.
int Comm::lost(int peer, int error) {
  std::vector<pollfd> seen;
  for (const Peer& each : peers_) seen.push_back({each.fd, POLLRDHUP, 0});
  poll(seen.data(), seen.size(), 0);
  std::string gone;
  int count = 0;
  for (int r = 0; r < size_; r++) {
    if (r != peer && !(seen[r].revents & (POLLRDHUP | POLLERR | POLLHUP))) continue;
    if (r != peer && said_why(r)) return hear_failure(r);
    gone += (count++ == 0 ? "" : ", ") + rank_name(r);
  }
  gone += count == 1 ? " was lost: its connection ended" : " were lost: their connections ended";
  if (error != 0) gone += std::string(": ") + strerror(error);
  return break_with(MB_ERR_PEER, gone + " (" + where() + ")");
}

bool Comm::said_why(int r) {
  Peer& peer = peers_[r];
  const Limit limit{now_ns() + kReasonNs, nullptr};
  int64_t skipped = 0;
  for (const Transfer& t : transfers_) {
    if (t.peer == r && !t.send && t.started && !t.done) skipped = t.left;
  }
  std::vector<char> data(1 << 16);
  for (;;) {
    while (skipped > 0) {
      const auto part = std::min(data.size(), static_cast<size_t>(skipped));
      if (read_all(peer.fd, data.data(), part, limit) != Io::kDone) return false;
      skipped -= static_cast<int64_t>(part);
    }
    const size_t left = sizeof peer.in - peer.in_at;
    if (read_all(peer.fd, reinterpret_cast<char*>(&peer.in) + peer.in_at, left, limit) != Io::kDone) return false;
    peer.in_at = 0;
    if (peer.in.call.op == kFailed) return true;
    skipped = peer.in.bytes;
  }
}

int Comm::hear_failure(int peer) {
  const Frame& frame = peers_[peer].in;
  if (frame.bytes < 0 || frame.bytes > kMaxReason) return lost(peer, EPROTO);
  std::string text(static_cast<size_t>(frame.bytes), ' ');
  const Limit limit{now_ns() + kReasonNs, nullptr};
  if (read_all(peers_[peer].fd, text.data(), text.size(), limit) != Io::kDone) return lost(peer, 0);
  return break_with(frame.call.dtype, text);
}

int Comm::last_words(int r) {
  Peer& peer = peers_[r];
  if (peer.in_at > 0 || recv(peer.fd, &peer.in, sizeof peer.in, 0) != sizeof peer.in) return lost(r, peer.cut);
  return peer.in.call.op == kFailed ? hear_failure(r) : lost(r, peer.cut);
}

int Comm::time_out(int64_t waited_ns) {
  std::string missing;
  for (int r = 0; r < size_; r++) {
    if (peers_[r].turn != 0) missing += (missing.empty() ? "" : ", ") + rank_name(r);
  }
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%.1f s", static_cast<double>(waited_ns) * 1e-9);
  return break_with(MB_ERR_TIMEOUT, std::string(op_name(current_)) + " timed out: " + rank_name(rank_) +
                                        " has waited " + seconds + " for " + missing + " (" + where() + ")");
}

// ---- Transfers -----------------------------------------------------------------------------------------------------

int Comm::exchange(Op op, const mb_p2p* ops, int count) {
  const int status = begin(op, 0, 0, 0);
  return status == MB_OK ? run(ops, count) : status;
}

int Comm::begin(Op op, int dtype, int argument, int64_t n) {
  current_ = op;
  call_ = {op, dtype, argument, 0, n};
  return check();
}

int Comm::run(const mb_p2p* ops, int count) {
  int status = plan_transfers(ops, count);
  if (status == MB_OK) status = transfer_to_self();
  int64_t since = now_ns();
  while (status == MB_OK) {
    bool moved = false, finished;
    status = progress(&moved, &finished);
    if (status != MB_OK || finished) return status;
    if (broken_) return broken_error();
    if (ended()) return fail(MB_ERR_PEER, "the thread of %s has ended (%s)", rank_name(rank_).c_str(), where().c_str());
    const int64_t now = now_ns();
    if (moved) {
      since = now;
    } else if (now - since > timeout_ns_) {
      return time_out(now - since);
    } else {
      status = sleep();
    }
  }
  return status;
}

// One pass over all operations. Behind an unfinished one, those with the same peer and direction wait their turn.
int Comm::progress(bool* moved, bool* finished) {
  for (Peer& peer : peers_) peer.turn = 0;
  *finished = true;
  for (Transfer& t : transfers_) {
    Peer& peer = peers_[t.peer];
    const uint8_t direction = t.send ? kSending : kReceiving;
    if (t.done || (peer.turn & direction)) continue;
    const int status = t.send ? send_some(t, moved) : receive_some(t, moved);
    if (status != MB_OK) return status;
    if (t.done) continue;
    peer.turn |= direction;
    *finished = false;
  }
  return MB_OK;
}

int Comm::send_some(Transfer& t, bool* moved) {
  Peer& peer = peers_[t.peer];
  if (peer.cut != 0) return MB_OK;
  if (!t.started) {
    t.started = peer.in_message = true;
    peer.out = {call_, t.bytes};
    peer.out_at = 0;
  }
  while (peer.out_at < sizeof peer.out || t.left > 0) {
    const size_t head = sizeof peer.out - peer.out_at;
    iovec parts[] = {{reinterpret_cast<char*>(&peer.out) + peer.out_at, head}, {t.at, static_cast<size_t>(t.left)}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    const ssize_t n = sendmsg(peer.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return MB_OK;
    if (n < 0) {
      peer.cut = errno;
      return MB_OK;
    }
    const auto of_head = std::min(static_cast<int64_t>(head), static_cast<int64_t>(n));
    peer.out_at += static_cast<size_t>(of_head);
    t.at += n - of_head;
    t.left -= n - of_head;
    *moved = true;
  }
  peer.in_message = false;
  t.done = true;
  return MB_OK;
}

int Comm::receive_some(Transfer& t, bool* moved) {
  Peer& peer = peers_[t.peer];
  if (!t.started) {
    while (peer.in_at < sizeof peer.in) {
      const ssize_t n = recv(peer.fd, reinterpret_cast<char*>(&peer.in) + peer.in_at, sizeof peer.in - peer.in_at, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return MB_OK;
      if (n <= 0) return lost(t.peer, n < 0 ? errno : 0);
      peer.in_at += static_cast<size_t>(n);
    }
    peer.in_at = 0;
    if (peer.in.call.op == kFailed) return hear_failure(t.peer);
    if (peer.in.call != call_) return break_with(MB_ERR_MISMATCH, mismatch(call_, t.peer, peer.in.call));
    if (peer.in.bytes != t.bytes) {
      return break_with(MB_ERR_MISMATCH, wrong_size(t.peer, peer.in.bytes, rank_, t.bytes));
    }
    t.started = *moved = true;
  }
  while (t.left > 0) {
    const ssize_t n = recv(peer.fd, t.at, static_cast<size_t>(t.left), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return MB_OK;
    if (n <= 0) return lost(t.peer, n < 0 ? errno : 0);
    t.at += n;
    t.left -= n;
    *moved = true;
  }
  t.done = true;
  return MB_OK;
}

// Until something can go on, or somebody who is needed is gone.
int Comm::sleep() {
  std::vector<pollfd> waited;
  for (const Peer& peer : peers_) {
    const bool receives = peer.turn & kReceiving, sends = (peer.turn & kSending) && peer.cut == 0;
    const int events = (receives ? POLLIN : 0) | (sends ? POLLOUT | POLLRDHUP : 0);
    waited.push_back({events == 0 ? -1 : peer.fd, static_cast<short>(events), 0});
  }
  for (int r = 0; r < size_; r++) {
    if (peers_[r].turn == kSending && peers_[r].cut != 0) return last_words(r);
  }
  if (poll(waited.data(), waited.size(), kLookMs) <= 0) return MB_OK;
  for (int r = 0; r < size_; r++) {
    if (peers_[r].turn == kSending && (waited[r].revents & POLLRDHUP)) return last_words(r);
  }
  return MB_OK;
}

}  // namespace mb::tcp
