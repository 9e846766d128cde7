#include "tokenizer/merges.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace mb::tokenizer {

Merges::Merges(const uint32_t* list, uint32_t count, const uint32_t* byte_ids) : merged_(count), byte_ranks_(65536) {
  std::copy(byte_ids, byte_ids + 256, byte_ids_);
  int bits = 4;
  while ((uint64_t{1} << bits) < uint64_t{2} * count) ++bits;
  slots_.assign(size_t{1} << bits, kFree);
  mask_ = slots_.size() - 1;
  shift_ = 64 - bits;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t pair = key(list[3 * i], list[3 * i + 1]);
    merged_[i] = list[3 * i + 2];
    uint64_t at = slot_of(pair);
    while (slots_[at] != kFree && slots_[at] >> 24 != pair) at = (at + 1) & mask_;
    slots_[at] = pair << 24 | i;
  }
  for (uint32_t i = 0; i < 65536; ++i) byte_ranks_[i] = rank(byte_ids_[i >> 8], byte_ids_[i & 255]);
}

void Merges::apply(const uint8_t* word, uint32_t size, Ids& out) {
  if (size <= kShort) {
    apply_short(word, size, out);
  } else {
    apply_long(word, size, out);
  }
}

// Looks through all ranks for the lowest each time: quadratic, and still the fastest where there are few.
void Merges::apply_short(const uint8_t* word, uint32_t size, Ids& out) {
  uint32_t ids[kShort];
  uint32_t ranks[kShort];  // of each symbol with the one after it
  for (uint32_t i = 0; i < size; ++i) ids[i] = byte_ids_[word[i]];
  for (uint32_t i = 0; i + 1 < size; ++i) ranks[i] = byte_ranks_[word[i] << 8 | word[i + 1]];
  uint32_t n = size;
  while (n > 1) {
    uint32_t lowest = kNone;
    for (uint32_t i = 0; i + 1 < n; ++i) lowest = std::min(lowest, ranks[i]);
    if (lowest == kNone) break;
    uint32_t at = 0;
    while (ranks[at] != lowest) ++at;
    ids[at] = merged_[lowest];
    memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof(uint32_t));
    memmove(ranks + at, ranks + at + 1, (n - at - 2) * sizeof(uint32_t));
    --n;
    if (at + 1 < n) ranks[at] = rank(ids[at], ids[at + 1]);
    if (at > 0) ranks[at - 1] = rank(ids[at - 1], ids[at]);
  }
  memcpy(out.room(n), ids, n * sizeof(uint32_t));
  out.add(n);
}

// The lowest rank from a heap, the leftmost of equal ones: n log n for any word.
void Merges::apply_long(const uint8_t* word, uint32_t size, Ids& out) {
  constexpr uint32_t kGone = kNone - 1;  // the rank of a symbol that was merged into the one before it
  symbols_.resize(size);
  heap_.clear();
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t found = i + 1 < size ? byte_ranks_[word[i] << 8 | word[i + 1]] : kNone;
    symbols_[i] = {byte_ids_[word[i]], found, i - 1, i + 1};
    if (found != kNone) heap_.push_back(static_cast<uint64_t>(found) << 32 | i);
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  const auto rank_again = [&](uint32_t at) {
    Symbol& symbol = symbols_[at];
    symbol.rank = symbol.next == size ? kNone : rank(symbol.id, symbols_[symbol.next].id);
    if (symbol.rank == kNone) return;
    heap_.push_back(static_cast<uint64_t>(symbol.rank) << 32 | at);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  };
  while (!heap_.empty()) {
    const uint64_t top = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    const auto at = static_cast<uint32_t>(top);
    Symbol& symbol = symbols_[at];
    // One of the two symbols was merged with another since.
    if (symbol.rank != top >> 32) continue;
    Symbol& after = symbols_[symbol.next];
    symbol.id = merged_[symbol.rank];
    after.rank = kGone;
    symbol.next = after.next;
    if (symbol.next != size) symbols_[symbol.next].previous = at;
    rank_again(at);
    if (at != 0) rank_again(symbol.previous);
  }
  for (uint32_t i = 0; i != size; i = symbols_[i].next) out.push(static_cast<int32_t>(symbols_[i].id));
  // A word of megabytes is rare: its memory is not kept.
  if (size > (1u << 16)) {
    symbols_ = {};
    heap_ = {};
  }
}

}  // namespace mb::tokenizer
