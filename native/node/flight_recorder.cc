#include "node/flight_recorder.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <type_traits>

#include "core/dtype.h"

namespace mb::node {
namespace {

constexpr const char* kOps[] = {
    "create",  "all_reduce", "reduce_scatter", "all_gather", "broadcast",
    "barrier", "p2p",        "all_to_all",     "share",      "unshare",
#define MB_COMM_OP(NAME, name, tensors, scalars) #name,
#include "core/comm_ops.def"
#undef MB_COMM_OP
};

using flight::Record;

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// What another process may read at any time: whole words, in the order of the program.
template <typename T>
void publish(T& place, T value) {
  std::atomic_ref<T>(place).store(value, std::memory_order_release);
}

template <size_t N>
void copy_text(char (&to)[N], const std::string& text) {
  const size_t length = std::min(text.size(), N - 1);
  memcpy(to, text.data(), length);
  memset(to + length, 0, N - length);
}

// FNV-1a.
uint64_t hash_of(const uint8_t id[128]) {
  uint64_t hash = 0xcbf29ce484222325;
  for (int i = 0; i < 128; i++) hash = (hash ^ id[i]) * 0x100000001b3;
  return hash == 0 ? 1 : hash;
}

void begin(Record* record) {
  flight::Header& header = record->header;
  header = {};
  header.version = flight::kVersion;
  header.groups = flight::kGroups;
  header.entries = flight::kEntries;
  static_assert(std::size(kOps) <= std::extent_v<decltype(flight::Header::ops)>);
  for (size_t op = 0; op < std::size(kOps); op++) copy_text(header.ops[op], kOps[op]);
  for (int dtype = MB_F32; dtype <= MB_U8; dtype++) copy_text(header.dtypes[dtype], dtype_name(dtype));
  publish(header.magic, flight::kMagic);
}

}  // namespace

const char* name_of(Collective op) {
  const auto at = static_cast<size_t>(op);
  return at < std::size(kOps) ? kOps[at] : "unknown call";
}

FlightRecorder::FlightRecorder() : record_(new Record()) { begin(record_); }

FlightRecorder::~FlightRecorder() {
  if (shared_) {
    munmap(record_, sizeof(Record));
  } else {
    delete record_;
  }
}

bool FlightRecorder::move_to(int file) {
  // Taken at once: on a full file system a later write would end the process.
  if (used_ || shared_ || posix_fallocate(file, 0, sizeof(Record)) != 0) return false;
  void* memory = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return false;
  delete record_;
  record_ = static_cast<Record*>(memory);
  shared_ = true;
  begin(record_);
  return true;
}

flight::Group* FlightRecorder::add(const uint8_t id[128], const std::string& name, int rank,
                                   const std::vector<int32_t>& ranks, bool counts_on_device) {
  used_ = true;
  flight::Group* const groups = record_->group;
  flight::Group* const end = groups + flight::kGroups;
  auto* found = std::find_if(groups, end, [](const flight::Group& group) { return group.id == 0; });
  // Else where one was that is gone: the one whose last call is longest ago.
  if (found == end) {
    const auto age = [](const flight::Group& group) {
      const flight::Entry& last = group.entry[std::max<int64_t>(0, group.entries - 1) % flight::kEntries];
      return group.live ? INT64_MAX : last.entered_ns;
    };
    found = std::min_element(groups, end, [&](const auto& a, const auto& b) { return age(a) < age(b); });
    if (found->live) return nullptr;
    publish(found->id, uint64_t{0});
  }
  *found = {};
  const auto kept = std::min<size_t>(ranks.size(), flight::kMembers);
  std::copy_n(ranks.begin(), kept, found->ranks);
  copy_text(found->name, name);
  found->size = static_cast<int32_t>(ranks.size());
  found->rank = rank;
  found->finished = counts_on_device ? 0 : -1;
  found->live = 1;
  publish(found->id, hash_of(id));
  return found;
}

void FlightRecorder::phase(int64_t step, const std::string& words) {
  flight::Header& header = record_->header;
  header.step = step;
  copy_text(header.phase, words);
  publish(header.phase_ns, now_ns());
}

FlightCall::FlightCall(flight::Group* group, const Call& call, const mb_p2p* transfers, int count) : group_(group) {
  if (group == nullptr) return;
  flight::Entry& entry = group->entry[group->entries % flight::kEntries];
  publish(entry.written, 0U);
  const bool exchange = call.op == Collective::kTransfers;
  int64_t& numbered = exchange ? group->exchanges : group->collectives;
  // Joining comes before the first.
  entry.number = call.op == Collective::kCreate ? 0 : numbered + 1;
  entry.entered_ns = now_ns();
  entry.ended_ns = 0;
  entry.device_call = 0;
  entry.count = call.count;
  entry.op = static_cast<int16_t>(call.op);
  entry.dtype = static_cast<int8_t>(call.dtype);
  entry.status = MB_OK;
  entry.argument = call.argument;
  entry.transfers = static_cast<uint32_t>(count);
  for (int i = 0; i < count; i++) {
    const int32_t peer = transfers[i].peer;
    if (peer < 0 || peer >= flight::kMembers) continue;
    const uint32_t number = ++(transfers[i].send ? group->sent : group->received)[peer];
    if (i < flight::kTransfers) entry.transfer[i] = {peer, 2 * number + (transfers[i].send ? 1 : 0)};
  }
  publish(entry.written, 1U);
  publish(group->entries, group->entries + 1);
  if (call.op != Collective::kCreate) publish(numbered, numbered + 1);
  entry_ = &entry;
}

void FlightCall::end(int status, int64_t device_call) {
  if (entry_ == nullptr) return;
  entry_->status = static_cast<int8_t>(status);
  entry_->device_call = device_call;
  publish(entry_->ended_ns, now_ns());
}

void flight_finished(flight::Group* group, int64_t calls) {
  if (group == nullptr || calls <= group->finished) return;
  group->finished_ns = now_ns();
  publish(group->finished, calls);
}

}  // namespace mb::node
