// What the tokenizers ask of a character. Text is valid UTF-8 throughout: `find_invalid` is asked first.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mb::tokenizer {

// Classes of a code point: the general categories that the patterns of pre-tokenizers name, and \s. At most one is set.
enum : uint8_t {
  kUpper = 1,        // Lu, Lt
  kLower = 2,        // Ll
  kOtherLetter = 4,  // Lm, Lo
  kMark = 8,
  kNumber = 16,
  kPunctuation = 32,
  kSymbol = 64,
  kSpace = 128,
  kLetter = kUpper | kLower | kOtherLetter,
};

constexpr uint32_t kCodePoints = 0x110000;

// Class of every code point, built at its first use.
const uint8_t* character_classes();

struct Character {
  uint32_t code;
  uint32_t bytes;
};

// The character at `p`.
inline Character decode(const uint8_t* p) {
  const uint32_t a = p[0];
  if (a < 0x80) return {a, 1};
  if (a < 0xe0) return {(a & 0x1f) << 6 | (p[1] & 0x3fu), 2};
  if (a < 0xf0) return {(a & 0x0f) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu), 3};
  return {(a & 0x07) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu), 4};
}

// Offset of the first byte that begins no UTF-8 character; `size` where all is valid.
size_t find_invalid(const uint8_t* text, size_t size);

// Whether the text is surely in normal form C: the quick check of Unicode Standard Annex 15. False means perhaps not.
bool surely_nfc(const uint8_t* text, size_t size);

}  // namespace mb::tokenizer
