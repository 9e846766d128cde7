// Where a word can be cut before merging: between two characters that no merged token holds side by side. No merge ever
// crosses such a seam, so both sides are merged by themselves to the same ids. Chinese has no spaces, and its long
// words fall into pieces that repeat.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "tokenizer/unicode.h"

namespace mb::tokenizer {

class Seams {
 public:
  // Takes in a token that merges make. It may begin or end within a character.
  void add(std::string_view token) {
    const auto* text = reinterpret_cast<const uint8_t*>(token.data());
    const size_t size = token.size();
    for (size_t at = 1; at < size; ++at) {
      // Only characters of several bytes: text of the others has short words.
      if (text[at] < 0xc0 || text[at - 1] < 0x80) continue;
      size_t begin = at - 1;
      while (begin > 0 && (text[begin] & 0xc0) == 0x80) --begin;
      size_t end = at + 1;
      while (end < size && (text[end] & 0xc0) == 0x80) ++end;
      const auto left = static_cast<uint32_t>(at - begin), right = static_cast<uint32_t>(end - at);
      // No UTF-8: no text has it.
      if (left > 4 || right > 4) continue;
      set(slot(pack(text + begin, left), pack(text + at, right)));
      longest_left_[left] = std::max(longest_left_[left], right);
    }
  }

  // The end of the piece of a word that begins at `p`.
  const uint8_t* next(const uint8_t* p, const uint8_t* end) const {
    Character a = decode(p);
    for (const uint8_t* at = p + a.bytes; at != end;) {
      const Character b = decode(at);
      if (a.bytes > 1 && b.bytes > 1 && !crossed(at, a.bytes, b.bytes)) return at;
      a = b;
      at += b.bytes;
    }
    return end;
  }

 private:
  static constexpr int kBits = 23;

  static uint32_t pack(const uint8_t* p, uint32_t bytes) {
    uint32_t packed = 0;
    for (uint32_t i = 0; i < bytes; ++i) packed = packed << 8 | p[i];
    return packed;
  }
  static uint64_t slot(uint32_t left, uint32_t right) {
    return (static_cast<uint64_t>(left) << 32 | right) * 0x9e3779b97f4a7c15u >> (64 - kBits);
  }
  void set(uint64_t at) { bits_[at >> 6] |= uint64_t{1} << (at & 63); }
  bool has(uint64_t at) const { return (bits_[at >> 6] >> (at & 63) & 1) != 0; }

  // Whether a token may hold bytes on both sides of `at`, where characters of `a` and `b` bytes meet: some last ones of
  // the first and some first ones of the second. Two characters that no token has may share a bit with two that one
  // has.
  bool crossed(const uint8_t* at, uint32_t a, uint32_t b) const {
    for (uint32_t left = a; left > 0; --left) {
      const uint32_t before = pack(at - left, left);
      uint32_t after = 0;
      for (uint32_t right = 1; right <= std::min(b, longest_left_[left]); ++right) {
        after = after << 8 | at[right - 1];
        if (has(slot(before, after))) return true;
      }
    }
    return false;
  }

  std::vector<uint64_t> bits_ = std::vector<uint64_t>((size_t{1} << kBits) / 64);
  uint32_t longest_left_[5] = {};  // by bytes on the left: the most bytes on the right that any token has
};

}  // namespace mb::tokenizer
