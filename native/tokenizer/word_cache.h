// The ids of words that were seen before. Text repeats its words: most of the work is here.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace mb::tokenizer {

class WordCache {
 public:
  static constexpr uint32_t kMaxBytes = 16;  // of a word that is kept

  // A word of at most kMaxBytes, as two numbers and its length.
  struct Key {
    uint64_t low, high;
    uint32_t size;
  };

  // `readable`: bytes from `word` on that may be read, at least `size`.
  static Key key(const uint8_t* word, uint32_t size, size_t readable) {
    Key made = {0, 0, size};
    if (readable >= kMaxBytes) {
      memcpy(&made.low, word, 8);
      memcpy(&made.high, word + 8, 8);
      if (size < 8) {
        made.low &= (uint64_t{1} << 8 * size) - 1;
        made.high = 0;
      } else if (size < 16) {
        made.high &= (uint64_t{1} << 8 * (size - 8)) - 1;
      }
    } else {
      uint8_t padded[kMaxBytes] = {};
      memcpy(padded, word, size);
      memcpy(&made.low, padded, 8);
      memcpy(&made.high, padded + 8, 8);
    }
    return made;
  }

  // Appends the ids of a word that is kept; false where it is not.
  bool find(const Key& word, std::vector<int32_t>& out) const {
    const Entry& entry = entries_[place(word)];
    if (entry.low != word.low || entry.high != word.high || entry.size != word.size) return false;
    if (entry.count == 1) {
      out.push_back(entry.ids[0]);
    } else {
      out.insert(out.end(), entry.ids, entry.ids + entry.count);
    }
    return true;
  }

  // Keeps a word in the place of another one. A word of more ids than there is place for is not kept.
  void keep(const Key& word, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    Entry& entry = entries_[place(word)];
    entry.low = word.low;
    entry.high = word.high;
    entry.size = static_cast<uint16_t>(word.size);
    entry.count = static_cast<uint16_t>(count);
    memcpy(entry.ids, ids, count * sizeof(int32_t));
  }

 private:
  static constexpr int kBits = 16;
  static constexpr size_t kMaxIds = 3;

  struct Entry {
    uint64_t low, high;
    uint16_t size, count;  // size 0: nothing is kept here
    int32_t ids[kMaxIds];
  };

  static size_t place(const Key& word) {
    const uint64_t mixed = (word.low ^ (word.high * 0x9e3779b97f4a7c15u) ^ word.size) * 0xd6e8feb86659fd93u;
    return (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15u >> (64 - kBits);
  }

  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << kBits);
};

}  // namespace mb::tokenizer
