#include "node/call_check.h"

#include <string.h>

#include "core/dtype.h"
#include "node/objects.h"

namespace mb::node {
namespace {

// What a member says of its call. As many bytes as NCCL likes a buffer to be aligned to.
struct Said {
  int32_t op, dtype, argument, reserved;
  int64_t count, reserved2;
};
static_assert(sizeof(Said) == 32);

// Of one message.
struct Announced {
  int64_t bytes, reserved[3];
};
static_assert(sizeof(Announced) == 32);

mb_buf bytes_at(void* memory, int64_t offset, int64_t bytes) {
  return {static_cast<char*>(memory) + offset, bytes, MB_U8, 0};
}

bool reduces(Collective op) { return op == Collective::kAllReduce || op == Collective::kReduceScatter; }

}  // namespace

CallCheck::CallCheck(const Device& device, mb_comm* comm, std::string group, int rank, std::vector<int32_t> ranks)
    : device_(device), comm_(comm), group_(std::move(group)), rank_(rank), ranks_(std::move(ranks)) {}

CallCheck::~CallCheck() {
  if (memory_ != nullptr) device_.backend->release(device_.device, memory_);
}

int CallCheck::reserve(int64_t bytes) {
  if (bytes <= reserved_) return MB_OK;
  if (memory_ != nullptr) device_.backend->release(device_.device, memory_);
  memory_ = nullptr;
  reserved_ = 0;
  const int status = device_.backend->alloc(device_.device, bytes, &memory_);
  if (status == MB_OK) reserved_ = bytes;
  return status;
}

int CallCheck::gather(int stream, const void* mine, int64_t bytes) {
  const mb_backend& backend = *device_.backend;
  const auto size = static_cast<int64_t>(ranks_.size());
  if (const int status = reserve((size + 1) * bytes)) return status;
  const mb_buf from = bytes_at(memory_, 0, bytes), to = bytes_at(memory_, bytes, size * bytes);
  gathered_.resize(static_cast<size_t>(size * bytes));
  if (const int status = backend.write(device_.device, stream, &from, mine)) return status;
  if (const int status = backend.comm.all_gather(comm_, stream, &from, &to, bytes)) return status;
  return backend.read(device_.device, stream, &to, gathered_.data());
}

int CallCheck::compare(int stream, const Call& call, std::string* error) {
  const Said mine = {static_cast<int32_t>(call.op), call.dtype, call.argument, 0, call.count, 0};
  if (const int status = gather(stream, &mine, sizeof mine)) return status;
  for (size_t r = 0; r < ranks_.size(); r++) {
    Said other;
    memcpy(&other, gathered_.data() + r * sizeof other, sizeof other);
    if (memcmp(&mine, &other, sizeof mine) == 0) continue;
    const Call theirs = {static_cast<Collective>(other.op), other.dtype, other.argument, other.count};
    *error = describe(rank_, call) + ", but " + describe(static_cast<int>(r), theirs) + " (group " + group_ + ")";
    return kDiffers;
  }
  return MB_OK;
}

int CallCheck::compare_counts(int stream, const int64_t* sent, const int64_t* received, std::string* error) {
  const size_t size = ranks_.size();
  std::vector<int64_t> mine(sent, sent + size);
  mine.insert(mine.end(), received, received + size);
  if (const int status = gather(stream, mine.data(), static_cast<int64_t>(mine.size() * sizeof(int64_t))))
    return status;
  const auto* all = reinterpret_cast<const int64_t*>(gathered_.data());
  // Every member looks at all pairs, so that all find the same.
  for (size_t from = 0; from < size; from++) {
    for (size_t to = 0; to < size; to++) {
      const int64_t out = all[from * 2 * size + to], in = all[to * 2 * size + size + from];
      if (out == in) continue;
      *error = "all_to_all: " + rank_name(static_cast<int>(from)) + " sends " + std::to_string(out) + " elements to " +
               rank_name(static_cast<int>(to)) + ", which expects " + std::to_string(in) + " (group " + group_ + ")";
      return kDiffers;
    }
  }
  return MB_OK;
}

int CallCheck::compare_transfers(int stream, const mb_p2p* transfers, int count, std::string* error) {
  const mb_backend& backend = *device_.backend;
  constexpr int64_t kEach = sizeof(Announced);
  if (count <= 0) return MB_OK;
  if (const int status = reserve(count * kEach)) return status;
  std::vector<Announced> said(static_cast<size_t>(count));
  std::vector<mb_p2p> list(transfers, transfers + count);
  for (int i = 0; i < count; i++) {
    const auto at = static_cast<size_t>(i);
    said[at].bytes = transfers[i].buf.bytes;
    list[at].buf = bytes_at(memory_, i * kEach, kEach);
  }
  const mb_buf whole = bytes_at(memory_, 0, count * kEach);
  if (const int status = backend.write(device_.device, stream, &whole, said.data())) return status;
  if (const int status = backend.comm.p2p(comm_, stream, list.data(), count)) return status;
  if (const int status = backend.read(device_.device, stream, &whole, said.data())) return status;
  for (int i = 0; i < count; i++) {
    const int64_t sent = said[static_cast<size_t>(i)].bytes, expected = transfers[i].buf.bytes;
    if (transfers[i].send || sent == expected) continue;
    *error = "p2p: " + rank_name(transfers[i].peer) + " sends " + std::to_string(sent) + " bytes to " +
             rank_name(rank_) + ", which expects " + std::to_string(expected) + " (group " + group_ + ")";
    return kDiffers;
  }
  return MB_OK;
}

std::string CallCheck::describe(int member, const Call& call) const {
  std::string text = rank_name(member) + " called " + name_of(call.op);
  if (call.count > 0) text += " of " + std::to_string(call.count) + " " + dtype_name(call.dtype);
  if (reduces(call.op)) text += call.argument == MB_MAX ? ", max" : ", sum";
  if (call.op == Collective::kBroadcast) {
    const int root = call.argument;
    const bool known = root >= 0 && static_cast<size_t>(root) < ranks_.size();
    text += " from " + (known ? rank_name(root) : "member " + std::to_string(root));
  }
  return text;
}

}  // namespace mb::node
