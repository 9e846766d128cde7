#include "node/call_check.h"

#include <string.h>

#include "core/dtype.h"
#include "node/objects.h"

namespace mb::node {
namespace {

// What a member says of its call, to each other one; of a p2p call to the peer of each message, with its bytes. As many
// bytes as NCCL likes a buffer to be aligned to.
struct Said {
  int32_t op, dtype, argument, reserved;
  int64_t count, reserved2;
};
static_assert(sizeof(Said) == 32);

Said said_of(const Call& call) { return {static_cast<int32_t>(call.op), call.dtype, call.argument, 0, call.count, 0}; }

Call call_of(const Said& said) { return {static_cast<Collective>(said.op), said.dtype, said.argument, said.count}; }

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

int CallCheck::exchange(int stream, std::vector<mb_p2p>* transfers, void* said) {
  const mb_backend& backend = *device_.backend;
  constexpr auto kEach = static_cast<int64_t>(sizeof(Said));
  const auto count = static_cast<int64_t>(transfers->size());
  if (count == 0) return MB_OK;
  if (const int status = reserve(count * kEach)) return status;
  for (int64_t i = 0; i < count; i++) (*transfers)[static_cast<size_t>(i)].buf = bytes_at(memory_, i * kEach, kEach);
  const mb_buf whole = bytes_at(memory_, 0, count * kEach);
  if (const int status = backend.write(device_.device, stream, &whole, said)) return status;
  if (const int status = backend.comm.p2p(comm_, stream, transfers->data(), static_cast<int>(count))) return status;
  return backend.read(device_.device, stream, &whole, said);
}

// Messages, and no all-gather: a member that makes a p2p call sends one as well, so that it is not waited for.
int CallCheck::compare(int stream, const Call& call, std::string* error) {
  const Said mine = said_of(call);
  std::vector<mb_p2p> transfers;
  for (int32_t peer = 0; peer < static_cast<int32_t>(ranks_.size()); peer++) {
    if (peer == rank_) continue;
    transfers.push_back({{}, peer, 1});
    transfers.push_back({{}, peer, 0});
  }
  std::vector<Said> said(transfers.size(), mine);
  if (const int status = exchange(stream, &transfers, said.data())) return status;
  for (size_t i = 0; i < said.size(); i++) {
    if (memcmp(&mine, &said[i], sizeof mine) == 0) continue;
    *error = differ(call, transfers[i].peer, call_of(said[i]));
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
  std::vector<mb_p2p> list(transfers, transfers + count);
  std::vector<Said> said;
  for (const mb_p2p& each : list) said.push_back(said_of({Collective::kTransfers, MB_U8, 0, each.buf.bytes}));
  if (const int status = exchange(stream, &list, said.data())) return status;
  for (int i = 0; i < count; i++) {
    if (transfers[i].send) continue;
    const Call mine = {Collective::kTransfers, MB_U8, 0, transfers[i].buf.bytes};
    const Call theirs = call_of(said[static_cast<size_t>(i)]);
    if (theirs.op != mine.op) {
      *error = differ(mine, transfers[i].peer, theirs);
    } else if (theirs.count != mine.count) {
      *error = "p2p: " + rank_name(transfers[i].peer) + " sends " + std::to_string(theirs.count) + " bytes to " +
               rank_name(rank_) + ", which expects " + std::to_string(mine.count) + " (group " + group_ + ")";
    } else {
      continue;
    }
    return kDiffers;
  }
  return MB_OK;
}

std::string CallCheck::differ(const Call& mine, int peer, const Call& theirs) const {
  return describe(rank_, mine) + ", but " + describe(peer, theirs) + " (group " + group_ + ")";
}

std::string CallCheck::describe(int member, const Call& call) const {
  std::string text = rank_name(member) + " called " + name_of(call.op);
  const char* unit = call.op == Collective::kTransfers ? "bytes" : dtype_name(call.dtype);
  if (call.count > 0) text += " of " + std::to_string(call.count) + " " + unit;
  if (reduces(call.op)) text += call.argument == MB_MAX ? ", max" : ", sum";
  if (call.op == Collective::kBroadcast) {
    const int root = call.argument;
    const bool known = root >= 0 && static_cast<size_t>(root) < ranks_.size();
    text += " from " + (known ? rank_name(root) : "member " + std::to_string(root));
  }
  return text;
}

}  // namespace mb::node
