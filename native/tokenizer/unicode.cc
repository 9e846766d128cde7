#include "tokenizer/unicode.h"

#include <cstring>
#include <vector>

#include "tokenizer/unicode_tables.h"

namespace mb::tokenizer {
namespace {

// A table has a number for each range of code points, from the first on: how many there are, times 256, plus their
// value.
template <size_t N>
std::vector<uint8_t> expand(const uint32_t (&ranges)[N]) {
  std::vector<uint8_t> values;
  values.reserve(kCodePoints);
  for (const uint32_t range : ranges) values.insert(values.end(), range >> 8, static_cast<uint8_t>(range));
  return values;
}

bool ascii8(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return (word & 0x8080808080808080u) == 0;
}

bool continues(uint8_t c) { return (c & 0xc0) == 0x80; }

// Bytes of the character at `p`, of which `left` can be read; 0 where it is none.
size_t valid_bytes(const uint8_t* p, size_t left) {
  const uint8_t a = p[0];
  if (a < 0x80) return 1;
  if (a < 0xc2 || a > 0xf4) return 0;
  if (left < 2 || !continues(p[1])) return 0;
  if (a < 0xe0) return 2;
  if (left < 3 || !continues(p[2])) return 0;
  // Overlong, or a surrogate.
  if (a < 0xf0) return (a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] >= 0xa0) ? 0 : 3;
  if (left < 4 || !continues(p[3])) return 0;
  // Overlong, or above U+10FFFF.
  return (a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] >= 0x90) ? 0 : 4;
}

}  // namespace

const uint8_t* character_classes() {
  static const std::vector<uint8_t> table = expand(kClassRanges);
  return table.data();
}

size_t find_invalid(const uint8_t* text, size_t size) {
  size_t i = 0;
  while (i < size) {
    if (size - i >= 8 && ascii8(text + i)) {
      i += 8;
      continue;
    }
    const size_t bytes = valid_bytes(text + i, size - i);
    if (bytes == 0) return i;
    i += bytes;
  }
  return size;
}

bool surely_nfc(const uint8_t* text, size_t size) {
  static const std::vector<uint8_t> table = expand(kCompositionRanges);
  uint8_t last = 0;
  size_t i = 0;
  while (i < size) {
    if (size - i >= 8 && ascii8(text + i)) {
      last = 0;
      i += 8;
      continue;
    }
    const Character c = decode(text + i);
    const uint8_t order = table[c.code];
    if (order == kMayChange || (order != 0 && order < last)) return false;
    last = order;
    i += c.bytes;
  }
  return true;
}

}  // namespace mb::tokenizer
