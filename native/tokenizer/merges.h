// The merges of a byte pair encoding, and how they are applied to a word.
#pragma once
#include <cstdint>
#include <vector>

#include "tokenizer/ids.h"

namespace mb::tokenizer {

class Merges {
 public:
  static constexpr uint32_t kMaxIds = (1u << 20) - 1;
  static constexpr uint32_t kMaxMerges = (1u << 24) - 1;

  // `list`: left, right and new id of each merge, the first merge first; ids are below kMaxIds. `byte_ids`: the id that
  // each byte has by itself. Where a pair is there twice, its last place counts.
  Merges(const uint32_t* list, uint32_t count, const uint32_t* byte_ids);

  // Appends the ids of a word of at least one byte.
  void apply(const uint8_t* word, uint32_t size, Ids& out);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;  // the rank of a pair that is not merged
  static constexpr uint32_t kShort = 128;        // bytes of a word

  static uint64_t key(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 20 | right; }
  uint64_t slot_of(uint64_t pair) const { return pair * 0x9e3779b97f4a7c15u >> shift_; }

  uint32_t rank(uint32_t left, uint32_t right) const {
    const uint64_t pair = key(left, right);
    for (uint64_t i = slot_of(pair);; i = (i + 1) & mask_) {
      const uint64_t slot = slots_[i];
      if (slot >> 24 == pair) return static_cast<uint32_t>(slot & 0xffffff);
      if (slot == kFree) return kNone;
    }
  }

  void apply_short(const uint8_t* word, uint32_t size, Ids& out);
  void apply_long(const uint8_t* word, uint32_t size, Ids& out);

  // Open addressing: left id << 44 | right id << 24 | rank, eight slots a cache line.
  static constexpr uint64_t kFree = UINT64_MAX;
  std::vector<uint64_t> slots_;
  uint64_t mask_ = 0;
  int shift_ = 0;
  std::vector<uint32_t> merged_;      // the new id of each rank
  std::vector<uint32_t> byte_ranks_;  // of each pair of bytes
  uint32_t byte_ids_[256];

  // Of apply_long, kept for its memory: a linked list of symbols, and a heap of rank << 32 | place.
  struct Symbol {
    uint32_t id, rank, previous, next;
  };
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;
};

}  // namespace mb::tokenizer
