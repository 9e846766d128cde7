// The ids of words that were seen before. Text repeats its words: most of the work is here.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "tokenizer/ids.h"

namespace mb::tokenizer {

class WordCache {
 public:
  static constexpr uint32_t kMaxBytes = 15;  // of a word that is kept
  static constexpr uint32_t kPiece = 16;     // added to the size: a piece of a word, which is not the same as that word

  // A word of 1 to kMaxBytes bytes; the last byte is its size.
  struct Key {
    uint64_t low, high;
  };

  // `readable`: bytes from `word` on that may be read, at least `size`.
  static Key key(const uint8_t* word, uint32_t size, size_t readable, uint32_t kind = 0) {
    Key made = {0, 0};
    if (readable >= 16) {
      memcpy(&made.low, word, 8);
      memcpy(&made.high, word + 8, 8);
      if (size < 8) {
        made.low &= (uint64_t{1} << 8 * size) - 1;
        made.high = 0;
      } else {
        made.high &= (uint64_t{1} << 8 * (size - 8)) - 1;
      }
    } else {
      uint8_t padded[16] = {};
      memcpy(padded, word, size);
      memcpy(&made.low, padded, 8);
      memcpy(&made.high, padded + 8, 8);
    }
    made.high |= static_cast<uint64_t>(size | kind) << 56;
    return made;
  }

  // Appends the ids of a word that is kept; false where it is not.
  bool find(const Key& word, Ids& out) const {
    const Entry& entry = entries_[place(word)];
    if (entry.low != word.low || entry.high != word.high) return false;
    int32_t* const ids = out.room(kMaxIds);
    for (int i = 0; i < 3; ++i) ids[i] = static_cast<int32_t>(entry.ids[0] >> 20 * i & kIdMask);
    const uint64_t count = entry.ids[0] >> 60;
    if (count > 3) {
      for (int i = 0; i < 3; ++i) ids[3 + i] = static_cast<int32_t>(entry.ids[1] >> 20 * i & kIdMask);
    }
    out.add(count);
    return true;
  }

  // Keeps a word in the place of another one. A word of more ids than there is place for is not kept.
  void keep(const Key& word, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    Entry entry = {word.low, word.high, {static_cast<uint64_t>(count) << 60, 0}};
    for (size_t i = 0; i < count; ++i) entry.ids[i / 3] |= static_cast<uint64_t>(ids[i]) << 20 * (i % 3);
    entries_[place(word)] = entry;
  }

 private:
  static constexpr int kBits = 17;
  static constexpr size_t kMaxIds = 6;
  static constexpr uint64_t kIdMask = (1u << 20) - 1;

  // Half a cache line. Ids have 20 bits (Merges::kMaxIds); the first three have their count above them.
  struct alignas(32) Entry {
    uint64_t low, high;  // both 0 where nothing is kept
    uint64_t ids[2];
  };

  static size_t place(const Key& word) {
    const uint64_t mixed = (word.low ^ (word.high * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;
    return (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15u >> (64 - kBits);
  }

  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << kBits);
};

}  // namespace mb::tokenizer
