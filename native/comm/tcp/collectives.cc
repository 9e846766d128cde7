// The collectives, as messages between all members.
#include <algorithm>

#include "comm/reduce.h"
#include "comm/tcp/comm.h"
#include "core/dtype.h"

namespace mb::tcp {
namespace {

using comm::bytes_of;
using comm::copy_bytes;
using comm::kMaxRanks;
using comm::reduce;

// Of what a member contributes at a time: what others do lies in memory beside it.
constexpr int64_t kChunkBytes = 4 << 20;

}  // namespace

void Comm::add(const char* data, int64_t bytes, int peer, bool send) {
  list_.push_back({{const_cast<char*>(data), bytes, MB_U8, 0}, peer, send ? 1 : 0});
}

int Comm::pass() {
  const int status = run(list_.data(), static_cast<int>(list_.size()));
  list_.clear();
  return status;
}

int Comm::move_all_reduce(int dtype, int op, const char* from, char* to, int64_t n) {
  const int64_t element = dtype_size(dtype), chunk = kChunkBytes / element;
  int64_t base = 0;
  do {
    // Member r reduces elements [bound(r), bound(r + 1)) of the chunk.
    const int64_t m = std::min(chunk, n - base), slice = (m + size_ - 1) / size_;
    const auto bound = [&](int r) { return std::min(m, r * slice) * element; };
    const char* chunk_in = from + base * element;
    char* chunk_out = to + base * element;
    const int64_t low = bound(rank_), bytes = bound(rank_ + 1) - low;
    scratch_.resize(static_cast<size_t>(size_ * bytes));
    const void* parts[kMaxRanks];
    for (int r = 0; r < size_; r++) {
      parts[r] = r == rank_ ? chunk_in + low : scratch_.data() + r * bytes;
      if (r == rank_) continue;
      add(chunk_in + bound(r), bound(r + 1) - bound(r), r, true);
      add(scratch_.data() + r * bytes, bytes, r, false);
    }
    int status = pass();
    if (status != MB_OK) return status;
    reduce(dtype, op, chunk_out + low, parts, size_, bytes / element);
    for (int r = 0; r < size_; r++) {
      if (r == rank_) continue;
      add(chunk_out + low, bytes, r, true);
      add(chunk_out + bound(r), bound(r + 1) - bound(r), r, false);
    }
    if ((status = pass()) != MB_OK) return status;
    base += chunk;
  } while (base < n);
  return end();
}

int Comm::move_reduce_scatter(int dtype, int op, const char* from, char* to, int64_t n) {
  const int64_t element = dtype_size(dtype), chunk = kChunkBytes / size_ / element;
  int64_t base = 0;
  do {
    const int64_t m = std::min(chunk, n - base), bytes = m * element;
    scratch_.resize(static_cast<size_t>(size_ * bytes));
    const void* parts[kMaxRanks];
    for (int r = 0; r < size_; r++) {
      const char* part = from + (r * n + base) * element;
      parts[r] = r == rank_ ? part : scratch_.data() + r * bytes;
      if (r == rank_) continue;
      add(part, bytes, r, true);
      add(scratch_.data() + r * bytes, bytes, r, false);
    }
    const int status = pass();
    if (status != MB_OK) return status;
    reduce(dtype, op, to + base * element, parts, size_, m);
    base += chunk;
  } while (base < n);
  return end();
}

int Comm::move_all_gather(const char* from, char* to, int64_t bytes) {
  for (int r = 0; r < size_; r++) {
    if (r == rank_) continue;
    add(from, bytes, r, true);
    add(to + r * bytes, bytes, r, false);
  }
  copy_bytes(to + rank_ * bytes, from, bytes);
  const int status = pass();
  return status == MB_OK ? end() : status;
}

int Comm::move_broadcast(char* data, int64_t bytes, int root) {
  for (int r = 0; r < size_; r++) {
    if (r == rank_) continue;
    add(data, rank_ == root ? bytes : 0, r, true);
    add(data, r == root ? bytes : 0, r, false);
  }
  const int status = pass();
  return status == MB_OK ? end() : status;
}

}  // namespace mb::tcp
