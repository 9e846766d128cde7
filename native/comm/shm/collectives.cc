// The collectives. Each proceeds chunk by chunk: members write to their slots, synchronise, and read each other's. A
// slot's half is written again two chunks later; between the two everybody synchronises at least once after reading it,
// so no second synchronisation is needed for that.
#include <string.h>

#include <algorithm>

#include "comm/shm/comm.h"
#include "comm/shm/reduce.h"
#include "core/dtype.h"

namespace mb::shm {
namespace {

// Up to here every member reduces all of an all_reduce itself: one synchronisation instead of two.
constexpr int64_t kSmallBytes = 8 << 10;

char* bytes_of(const mb_buf& buf) { return static_cast<char*>(buf.ptr); }

void copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) memcpy(to, from, bytes);
}

bool overlap(const char* a, int64_t a_bytes, const char* b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

int Comm::check_elements(const mb_buf& buf, int64_t n, const char* what) {
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

int Comm::check_pair(const mb_buf& in, int64_t in_n, const mb_buf& out, int64_t out_n) {
  if (in.dtype != out.dtype) {
    return argument_error(std::string("in is ") + dtype_name(in.dtype) + ", out is " + dtype_name(out.dtype));
  }
  const int status = check_elements(in, in_n, "in");
  return status != MB_OK ? status : check_elements(out, out_n, "out");
}

int Comm::check_reduce(int dtype, int op) {
  if (can_reduce(dtype, op)) return MB_OK;
  return break_with(MB_ERR_UNSUPPORTED, rank_name(rank_) + ": no reduction " + std::to_string(op) + " of " +
                                            dtype_name(dtype) + " (" + where() + ")");
}

int Comm::all_reduce(const mb_buf& in, const mb_buf& out, int64_t n, int op) {
  int status = begin(kAllReduce, in.dtype, op, n);
  if (status == MB_OK) status = check_pair(in, n, out, n);
  if (status == MB_OK) status = check_reduce(in.dtype, op);
  if (status != MB_OK) return status;
  const int64_t element = dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (from != to && overlap(from, n * element, to, n * element)) {
    return argument_error("in and out overlap without being the same");
  }
  const void* parts[kMaxRanks];
  if (size_ == 1) {
    copy(to, from, n * element);
    return end();
  }
  if (n * element <= kSmallBytes) {
    const int half = next_half();
    copy(segment_.slot(rank_, half), from, n * element);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) parts[r] = segment_.slot(r, half);
    reduce(in.dtype, op, to, parts, size_, n);
    return end();
  }
  const int64_t chunk = kChunkBytes / element;
  for (int64_t base = 0; base < n; base += chunk) {
    // Member r reduces elements [bound(r), bound(r + 1)) of the chunk; what it contributes to them stays in `in`.
    const int64_t m = std::min(chunk, n - base);
    const int64_t per_line = 64 / element;
    const int64_t slice = (m + size_ * per_line - 1) / (size_ * per_line) * per_line;
    auto bound = [&](int r) { return std::min(m, r * slice) * element; };
    const int half = next_half();
    const int64_t low = bound(rank_), high = bound(rank_ + 1);
    const char* chunk_in = from + base * element;
    char* chunk_out = to + base * element;
    char* slot = segment_.slot(rank_, half);
    copy(slot, chunk_in, low);
    copy(slot + high, chunk_in + high, m * element - high);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) parts[r] = r == rank_ ? chunk_in + low : segment_.slot(r, half) + low;
    reduce(in.dtype, op, slot + low, parts, size_, (high - low) / element);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      copy(chunk_out + bound(r), segment_.slot(r, half) + bound(r), bound(r + 1) - bound(r));
    }
  }
  return end();
}

int Comm::reduce_scatter(const mb_buf& in, const mb_buf& out, int64_t n, int op) {
  int status = begin(kReduceScatter, in.dtype, op, n);
  if (status == MB_OK) status = check_pair(in, n > INT64_MAX / kMaxRanks ? n : n * size_, out, n);
  if (status == MB_OK) status = check_reduce(in.dtype, op);
  if (status != MB_OK) return status;
  const int64_t element = dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (from + rank_ * n * element != to && overlap(from, size_ * n * element, to, n * element)) {
    return argument_error("out overlaps in without being this rank's slice of it");
  }
  if (size_ == 1) {
    copy(to, from, n * element);
    return end();
  }
  const void* parts[kMaxRanks];
  const int64_t stride = kChunkBytes / size_ / 64 * 64;  // of the parts for each member in a slot
  const int64_t chunk = stride / element;
  int64_t base = 0;
  do {
    const int64_t m = std::min(chunk, n - base);
    const int half = next_half();
    for (int r = 0; r < size_; r++) {
      if (r != rank_) copy(segment_.slot(rank_, half) + r * stride, from + (r * n + base) * element, m * element);
    }
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      parts[r] = r == rank_ ? from + (r * n + base) * element : segment_.slot(r, half) + rank_ * stride;
    }
    reduce(in.dtype, op, to + base * element, parts, size_, m);
    base += chunk;
  } while (base < n);
  return end();
}

int Comm::all_gather(const mb_buf& in, const mb_buf& out, int64_t n) {
  int status = begin(kAllGather, in.dtype, 0, n);
  if (status == MB_OK) status = check_pair(in, n, out, n > INT64_MAX / kMaxRanks ? n : n * size_);
  if (status != MB_OK) return status;
  const int64_t bytes = n * dtype_size(in.dtype);
  const char* from = bytes_of(in);
  char* to = bytes_of(out);
  if (to + rank_ * bytes != from && overlap(from, bytes, to, size_ * bytes)) {
    return argument_error("in overlaps out without being this rank's slice of it");
  }
  if (size_ == 1) {
    copy(to, from, bytes);
    return end();
  }
  int64_t base = 0;
  do {
    const int64_t m = std::min(kChunkBytes, bytes - base);
    const int half = next_half();
    copy(segment_.slot(rank_, half), from + base, m);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      copy(to + r * bytes + base, r == rank_ ? from + base : segment_.slot(r, half), m);
    }
    base += m;
  } while (base < bytes);
  return end();
}

int Comm::broadcast(const mb_buf& buf, int64_t n, int root) {
  int status = begin(kBroadcast, buf.dtype, root, n);
  if (status == MB_OK) status = check_elements(buf, n, "buf");
  if (status == MB_OK && (root < 0 || root >= size_)) {
    status = argument_error("root " + std::to_string(root) + " is not a rank of the group");
  }
  if (status != MB_OK || size_ == 1) return status;
  const int64_t bytes = n * dtype_size(buf.dtype);
  int64_t base = 0;
  do {
    const int64_t m = std::min(kChunkBytes, bytes - base);
    const int half = next_half();
    if (rank_ == root) copy(segment_.slot(root, half), bytes_of(buf) + base, m);
    if ((status = synchronise()) != MB_OK) return status;
    if (rank_ != root) copy(bytes_of(buf) + base, segment_.slot(root, half), m);
    base += m;
  } while (base < bytes);
  return end();
}

int Comm::barrier() {
  const int status = begin(kBarrier, 0, 0, 0);
  if (status != MB_OK || size_ == 1) return status;
  const int synchronised = synchronise();
  return synchronised != MB_OK ? synchronised : end();
}

}  // namespace mb::shm
