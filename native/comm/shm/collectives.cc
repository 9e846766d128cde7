// The collectives. Each proceeds chunk by chunk: members write to their slots, synchronise, and read each other's. A
// slot's half is written again two chunks later; between the two everybody synchronises at least once after reading it,
// so no second synchronisation is needed for that.
#include <algorithm>

#include "comm/reduce.h"
#include "comm/shm/comm.h"
#include "core/dtype.h"

namespace mb::shm {
namespace {

using comm::copy_bytes;
using comm::kMaxRanks;
using comm::reduce;

// Up to here every member reduces all of an all_reduce itself: one synchronisation instead of two.
constexpr int64_t kSmallBytes = 8 << 10;

}  // namespace

int Comm::move_all_reduce(int dtype, int op, const char* from, char* to, int64_t n) {
  const int64_t element = dtype_size(dtype);
  const void* parts[kMaxRanks];
  int status;
  if (n * element <= kSmallBytes) {
    const int half = next_half();
    copy_bytes(segment_.slot(rank_, half), from, n * element);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) parts[r] = segment_.slot(r, half);
    reduce(dtype, op, to, parts, size_, n);
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
    copy_bytes(slot, chunk_in, low);
    copy_bytes(slot + high, chunk_in + high, m * element - high);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) parts[r] = r == rank_ ? chunk_in + low : segment_.slot(r, half) + low;
    reduce(dtype, op, slot + low, parts, size_, (high - low) / element);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      copy_bytes(chunk_out + bound(r), segment_.slot(r, half) + bound(r), bound(r + 1) - bound(r));
    }
  }
  return end();
}

int Comm::move_reduce_scatter(int dtype, int op, const char* from, char* to, int64_t n) {
  const int64_t element = dtype_size(dtype);
  int status;
  const void* parts[kMaxRanks];
  const int64_t stride = kChunkBytes / size_ / 64 * 64;  // of the parts for each member in a slot
  const int64_t chunk = stride / element;
  int64_t base = 0;
  do {
    const int64_t m = std::min(chunk, n - base);
    const int half = next_half();
    for (int r = 0; r < size_; r++) {
      if (r != rank_) copy_bytes(segment_.slot(rank_, half) + r * stride, from + (r * n + base) * element, m * element);
    }
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      parts[r] = r == rank_ ? from + (r * n + base) * element : segment_.slot(r, half) + rank_ * stride;
    }
    reduce(dtype, op, to + base * element, parts, size_, m);
    base += chunk;
  } while (base < n);
  return end();
}

int Comm::move_all_gather(const char* from, char* to, int64_t bytes) {
  int status;
  int64_t base = 0;
  do {
    const int64_t m = std::min(kChunkBytes, bytes - base);
    const int half = next_half();
    copy_bytes(segment_.slot(rank_, half), from + base, m);
    if ((status = synchronise()) != MB_OK) return status;
    for (int r = 0; r < size_; r++) {
      copy_bytes(to + r * bytes + base, r == rank_ ? from + base : segment_.slot(r, half), m);
    }
    base += m;
  } while (base < bytes);
  return end();
}

int Comm::move_broadcast(char* data, int64_t bytes, int root) {
  int status;
  int64_t base = 0;
  do {
    const int64_t m = std::min(kChunkBytes, bytes - base);
    const int half = next_half();
    if (rank_ == root) copy_bytes(segment_.slot(root, half), data + base, m);
    if ((status = synchronise()) != MB_OK) return status;
    if (rank_ != root) copy_bytes(data + base, segment_.slot(root, half), m);
    base += m;
  } while (base < bytes);
  return end();
}

int Comm::meet() {
  const int status = synchronise();
  return status != MB_OK ? status : end();
}

}  // namespace mb::shm
