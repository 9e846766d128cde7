#include "comm/communicator.h"

#include <string.h>

#include <iterator>

#include "comm/reduce.h"
#include "core/dtype.h"

namespace mb::comm {
namespace {

bool overlap(const char* a, int64_t a_bytes, const char* b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

const char* Communicator::op_name(uint32_t op) {
  static constexpr const char* kNames[] = {"no call", "all_reduce", "reduce_scatter", "all_gather", "broadcast",
                                           "barrier", "p2p",        "all_to_all",     "create"};
  return op < std::size(kNames) ? kNames[op] : "unknown call";
}

std::string group_text(const char* name, const int32_t* ranks, int size) {
  std::string text = std::string("group ") + name + " [";
  for (int i = 0; i < size; i++) {
    if (size > 16 && i == 8) {
      text += "..., ";
      i = size - 1;
    }
    text += std::to_string(ranks[i]);
    if (i + 1 < size) text += ",";
  }
  return text + "]";
}

void copy_bytes(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) memcpy(to, from, bytes);
}

Communicator::Communicator(const Joining& who)
    : name_(who.name),
      ranks_(who.ranks, who.ranks + who.size),
      rank_(who.rank),
      size_(who.size),
      timeout_ns_(who.timeout_ns),
      thread_ended_(who.thread_ended) {}

// ---- Failures ------------------------------------------------------------------------------------------------------

std::string Communicator::where() const {
  return group_text(name_.c_str(), ranks_.data(), size_) + ", in " + op_name(current_);
}

std::string Communicator::describe(int rank, const Call& call) const {
  std::string text = rank_name(rank) + " called " + op_name(call.op);
  if (call.op < kAllReduce || call.op > kBroadcast) return text;
  text += " of " + std::to_string(call.count) + " " + dtype_name(call.dtype);
  if (call.op == kAllReduce || call.op == kReduceScatter) text += call.argument == MB_MAX ? ", max" : ", sum";
  if (call.op == kBroadcast) {
    const int root = call.argument;
    text += " from " + (root >= 0 && root < size_ ? rank_name(root) : "member " + std::to_string(root));
  }
  return text;
}

std::string Communicator::mismatch(const Call& mine, int other, const Call& theirs) const {
  return describe(rank_, mine) + ", but " + describe(other, theirs) + " (" +
         group_text(name_.c_str(), ranks_.data(), size_) + ")";
}

std::string Communicator::wrong_size(int from, int64_t sent, int to, int64_t expected) const {
  return rank_name(from) + " sends " + std::to_string(sent) + " bytes to " + rank_name(to) + ", which expects " +
         std::to_string(expected) + " (" + where() + ")";
}

void Communicator::abort() {
  break_with(MB_ERR_PEER, rank_name(rank_) + " aborted (" + group_text(name_.c_str(), ranks_.data(), size_) + ")");
}

int Communicator::argument_error(const std::string& found) {
  return break_with(MB_ERR_ARGUMENT, rank_name(rank_) + ": " + found + " (" + where() + ")");
}

// ---- Arguments -----------------------------------------------------------------------------------------------------

int Communicator::check_elements(const mb_buf& buf, int64_t n, const char* what) {
  const int64_t size = dtype_size(buf.dtype);
  if (size == 0) return argument_error(std::string(what) + " has no known dtype");
  if (n < 0 || (n > 0 && !buf.ptr) || n > buf.bytes / size) {
    return argument_error(std::string(what) + " has " + std::to_string(buf.bytes) + " bytes, too few for " +
                          std::to_string(n) + " " + dtype_name(buf.dtype));
  }
  if (reinterpret_cast<uintptr_t>(buf.ptr) % size != 0) {
    return argument_error(std::string(what) + " is not aligned to its dtype");
  }
  return MB_OK;
}

int Communicator::check_pair(const mb_buf& in, int64_t in_n, const mb_buf& out, int64_t out_n) {
  if (in.dtype != out.dtype) {
    return argument_error(std::string("in is ") + dtype_name(in.dtype) + ", out is " + dtype_name(out.dtype));
  }
  const int status = check_elements(in, in_n, "in");
  return status != MB_OK ? status : check_elements(out, out_n, "out");
}

int Communicator::check_reduce(int dtype, int op) {
  if (can_reduce(dtype, op)) return MB_OK;
  return break_with(MB_ERR_UNSUPPORTED, rank_name(rank_) + ": no reduction " + std::to_string(op) + " of " +
                                            dtype_name(dtype) + " (" + where() + ")");
}

// ---- Collectives ---------------------------------------------------------------------------------------------------

int Communicator::all_reduce(const mb_buf& in, const mb_buf& out, int64_t n, int op) {
  int status = begin(kAllReduce, in.dtype, op, n);
  if (status == MB_OK) status = check_pair(in, n, out, n);
  if (status == MB_OK) status = check_reduce(in.dtype, op);
  if (status != MB_OK) return status;
  const int64_t bytes = n * dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (from != to && overlap(from, bytes, to, bytes)) {
    return argument_error("in and out overlap without being the same");
  }
  if (size_ > 1) return move_all_reduce(in.dtype, op, from, to, n);
  copy_bytes(to, from, bytes);
  return end();
}

int Communicator::reduce_scatter(const mb_buf& in, const mb_buf& out, int64_t n, int op) {
  int status = begin(kReduceScatter, in.dtype, op, n);
  if (status == MB_OK) status = check_pair(in, n > INT64_MAX / kMaxRanks ? n : n * size_, out, n);
  if (status == MB_OK) status = check_reduce(in.dtype, op);
  if (status != MB_OK) return status;
  const int64_t bytes = n * dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (from + rank_ * bytes != to && overlap(from, size_ * bytes, to, bytes)) {
    return argument_error("out overlaps in without being this rank's slice of it");
  }
  if (size_ > 1) return move_reduce_scatter(in.dtype, op, from, to, n);
  copy_bytes(to, from, bytes);
  return end();
}

int Communicator::all_gather(const mb_buf& in, const mb_buf& out, int64_t n) {
  int status = begin(kAllGather, in.dtype, 0, n);
  if (status == MB_OK) status = check_pair(in, n, out, n > INT64_MAX / kMaxRanks ? n : n * size_);
  if (status != MB_OK) return status;
  const int64_t bytes = n * dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (to + rank_ * bytes != from && overlap(from, bytes, to, size_ * bytes)) {
    return argument_error("in overlaps out without being this rank's slice of it");
  }
  if (size_ > 1) return move_all_gather(from, to, bytes);
  copy_bytes(to, from, bytes);
  return end();
}

int Communicator::broadcast(const mb_buf& buf, int64_t n, int root) {
  int status = begin(kBroadcast, buf.dtype, root, n);
  if (status == MB_OK) status = check_elements(buf, n, "buf");
  if (status == MB_OK && (root < 0 || root >= size_)) {
    status = argument_error("root " + std::to_string(root) + " is not a rank of the group");
  }
  if (status != MB_OK || size_ == 1) return status;
  return move_broadcast(bytes_of(buf), n * dtype_size(buf.dtype), root);
}

int Communicator::barrier() {
  const int status = begin(kBarrier, 0, 0, 0);
  return status != MB_OK || size_ == 1 ? status : meet();
}

// ---- Transfers -----------------------------------------------------------------------------------------------------

int Communicator::all_to_all(const AllToAll& call) {
  current_ = kAllToAll;
  const int status = check();
  if (status != MB_OK) return status;
  const std::string problem = call.problem();
  if (!problem.empty()) return argument_error(problem);
  const std::vector<mb_p2p> transfers = call.transfers();
  return exchange(kAllToAll, transfers.data(), static_cast<int>(transfers.size()));
}

int Communicator::plan_transfers(const mb_p2p* ops, int count) {
  transfers_.clear();
  for (int i = 0; i < count; i++) {
    const mb_p2p& op = ops[i];
    const std::string what = std::string(op.send ? "send" : "receive") + " " + std::to_string(i);
    if (op.peer < 0 || op.peer >= size_) {
      return argument_error(what + ": peer " + std::to_string(op.peer) + " is not a rank of the group");
    }
    if (op.buf.bytes < 0 || (op.buf.bytes > 0 && !op.buf.ptr)) return argument_error(what + " has no buffer");
    transfers_.push_back(
        {static_cast<char*>(op.buf.ptr), op.buf.bytes, op.buf.bytes, op.peer, op.send != 0, false, false});
  }
  return MB_OK;
}

// Messages of a member to itself: the k-th send is the k-th receive.
int Communicator::transfer_to_self() {
  size_t receive = 0;
  for (Transfer& send : transfers_) {
    if (send.peer != rank_ || !send.send) continue;
    auto is_receive = [&](const Transfer& t) { return t.peer == rank_ && !t.send; };
    while (receive < transfers_.size() && !is_receive(transfers_[receive])) receive++;
    if (receive == transfers_.size()) return argument_error("a send to itself has no receive in the same call");
    Transfer& t = transfers_[receive++];
    if (t.bytes != send.bytes) {
      return argument_error("it sends itself " + std::to_string(send.bytes) + " bytes and expects " +
                            std::to_string(t.bytes));
    }
    if (t.bytes > 0) memmove(t.at, send.at, t.bytes);
    send.done = t.done = true;
  }
  for (const Transfer& t : transfers_) {
    if (t.peer == rank_ && !t.done) return argument_error("a receive from itself has no send in the same call");
  }
  return MB_OK;
}

}  // namespace mb::comm
