// The pre-tokenizers: where a text is cut into words, as the regular expressions of tokenizer.json cut it. Each is a
// struct with `next(p, end)`: the end of the word that begins at `p`, where p < end and the text ends at `end`. The
// comments give the alternatives of the pattern in their order, for the first that matches wins.
#pragma once
#include "tokenizer/unicode.h"

namespace mb::tokenizer {

class Scanner {
 protected:
  // Class and length of the character at `p`; bytes is 0 at the end.
  struct Seen {
    uint8_t kind;
    uint32_t bytes;
  };
  Seen see(const uint8_t* p, const uint8_t* end) const {
    if (p == end) return {0, 0};
    const Character c = decode(p);
    return {classes_[c.code], c.bytes};
  }

  // The end of the characters from `p` on that are of these classes; `Not` turns the classes round.
  template <bool Not = false>
  const uint8_t* run(const uint8_t* p, const uint8_t* end, uint8_t kinds) const {
    while (p != end) {
      const Character c = decode(p);
      if (((classes_[c.code] & kinds) != 0) == Not) break;
      p += c.bytes;
    }
    return p;
  }

  // \p{N}{1,most}
  const uint8_t* numbers(const uint8_t* p, const uint8_t* end, int most) const {
    for (int i = 0; i < most && p != end; ++i) {
      const Character c = decode(p);
      if ((classes_[c.code] & kNumber) == 0) break;
      p += c.bytes;
    }
    return p;
  }

  static const uint8_t* newlines(const uint8_t* p, const uint8_t* end, bool slash = false) {
    while (p != end && (*p == '\r' || *p == '\n' || (slash && *p == '/'))) ++p;
    return p;
  }

  // `\s*[\r\n]+|\s+(?!\S)|\s+`, the first only with `lines`; `p` is at a space.
  template <class See>
  static const uint8_t* spaces(const uint8_t* p, bool lines, const See& at) {
    const uint8_t* after_line = nullptr;
    const uint8_t* last = p;
    const uint8_t* q = p;
    Seen seen = at(q);
    while ((seen.kind & kSpace) != 0) {
      last = q;
      q += seen.bytes;
      if (*last == '\r' || *last == '\n') after_line = q;
      seen = at(q);
    }
    if (lines && after_line != nullptr) return after_line;
    // What follows is no space, so all but the last space match before it, if there are so many.
    return seen.bytes == 0 || last == p ? q : last;
  }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d), or with case as it is: its end, or `p`.
  template <bool AnyCase>
  static const uint8_t* contraction(const uint8_t* p, const uint8_t* end) {
    if (end - p < 2 || *p != '\'') return p;
    const auto letter = [](uint8_t c) -> uint8_t { return AnyCase && c >= 'A' && c <= 'Z' ? c + 32 : c; };
    const uint8_t a = letter(p[1]);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
    if (end - p < 3) return p;
    const uint8_t b = letter(p[2]);
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
    // U+017F, the long s, is an s in another case.
    return AnyCase && p[1] == 0xc5 && p[2] == 0xbf ? p + 3 : p;
  }

  const uint8_t* const classes_ = character_classes();
};

// GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
struct Gpt2Scanner : Scanner {
  const uint8_t* next(const uint8_t* p, const uint8_t* end) const {
    const uint8_t* const contracted = contraction<false>(p, end);
    if (contracted != p) return contracted;
    const uint8_t* const q = *p == ' ' ? p + 1 : p;
    const Seen first = see(q, end);
    if ((first.kind & kLetter) != 0) return run(q + first.bytes, end, kLetter);
    if ((first.kind & kNumber) != 0) return run(q + first.bytes, end, kNumber);
    if (first.bytes != 0 && (first.kind & kSpace) == 0) {
      return run<true>(q + first.bytes, end, kSpace | kLetter | kNumber);
    }
    return spaces(p, false, [&](const uint8_t* at) { return see(at, end); });
  }
};

// cl100k (GPT-4), Qwen, Llama 3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,Digits}|
//  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <int Digits>
struct Cl100kScanner : Scanner {
  const uint8_t* next(const uint8_t* p, const uint8_t* end) const {
    const uint8_t* const contracted = contraction<true>(p, end);
    if (contracted != p) return contracted;
    const Seen first = see(p, end);
    const uint8_t* const q = p + first.bytes;
    if ((first.kind & kLetter) != 0) return run(q, end, kLetter);
    if ((first.kind & kNumber) != 0) return numbers(q, end, Digits - 1);
    const Seen second = see(q, end);
    if ((second.kind & kLetter) != 0 && *p != '\r' && *p != '\n') return run(q + second.bytes, end, kLetter);
    if ((first.kind & kSpace) == 0) return newlines(run<true>(q, end, kSpace | kLetter | kNumber), end);
    if (*p == ' ' && second.bytes != 0 && (second.kind & (kSpace | kNumber)) == 0) {
      return newlines(run<true>(q + second.bytes, end, kSpace | kLetter | kNumber), end);
    }
    return spaces(p, true, [&](const uint8_t* at) { return see(at, end); });
  }
};

// o200k (GPT-4o, GPT-OSS), with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W = [\p{Ll}\p{Lm}\p{Lo}\p{M}] and
// C = (?i:'s|'t|'re|'ve|'m|'ll|'d): [^\r\n\p{L}\p{N}]?U*W+C?|[^\r\n\p{L}\p{N}]?U+W*C?|\p{N}{1,3}|
//  ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
struct O200kScanner : Scanner {
  const uint8_t* next(const uint8_t* p, const uint8_t* end) const {
    const Seen first = see(p, end);
    if ((first.kind & kNumber) != 0) return numbers(p + first.bytes, end, 2);
    const uint8_t* const q = p + first.bytes;
    if ((first.kind & kLetter) == 0 && *p != '\r' && *p != '\n') {
      const Word word = letters(q, end);
      // A mark may be the word's first letter as well, and then U*W+ always matches.
      if (word.first != nullptr) return contraction<true>(word.first, end);
      if ((first.kind & kMark) == 0 && word.second != nullptr) return contraction<true>(word.second, end);
    }
    if ((first.kind & (kLetter | kMark)) != 0) {
      const Word word = letters(p, end);
      return contraction<true>(word.first != nullptr ? word.first : word.second, end);
    }
    if ((first.kind & kSpace) == 0) return newlines(run<true>(q, end, kSpace | kLetter | kNumber), end, true);
    const Seen second = see(q, end);
    if (*p == ' ' && second.bytes != 0 && (second.kind & (kSpace | kLetter | kNumber)) == 0) {
      return newlines(run<true>(q + second.bytes, end, kSpace | kLetter | kNumber), end, true);
    }
    return spaces(p, true, [&](const uint8_t* at) { return see(at, end); });
  }

 private:
  // Ends of U*W+ and of U+W* at `p`; null where it does not match. The second only counts where the first is null.
  struct Word {
    const uint8_t* first;
    const uint8_t* second;
  };
  Word letters(const uint8_t* p, const uint8_t* end) const {
    const uint8_t* q = p;
    const uint8_t* both = nullptr;  // after the last character that is in U and in W
    Seen seen = see(q, end);
    while ((seen.kind & (kUpper | kOtherLetter | kMark)) != 0) {
      q += seen.bytes;
      if ((seen.kind & kUpper) == 0) both = q;
      seen = see(q, end);
    }
    if ((seen.kind & kLower) != 0) {
      return {run(q + seen.bytes, end, kLower | kOtherLetter | kMark), nullptr};
    }
    // U* gives back characters until W+ has one.
    return {both, q == p ? nullptr : q};
  }
};

// DeepSeek, three splits after each other: \p{N}{1,3}, then [一-龥぀-ゟ゠-ヿ]+, then
// [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// The last sees each piece of the others alone, and what it does not match is a word too.
struct DeepSeekScanner : Scanner {
  const uint8_t* next(const uint8_t* p, const uint8_t* end) const {
    const Character first = decode(p);
    if ((classes_[first.code] & kNumber) != 0) return numbers(p + first.bytes, end, 2);
    const bool han = in_han(first.code);
    const uint8_t* q = match(p, end, han);
    if (q != p) return q;
    for (q = p + first.bytes; see_piece(q, end, han).bytes != 0 && match(q, end, han) == q;) q += decode(q).bytes;
    return q;
  }

 private:
  static bool in_han(uint32_t c) { return c - 0x4e00 <= 0x9fa5 - 0x4e00 || c - 0x3040 <= 0x30ff - 0x3040; }

  // A piece of the first two splits ends at a number, and where Han or kana begin or end.
  Seen see_piece(const uint8_t* p, const uint8_t* end, bool han) const {
    if (p == end) return {0, 0};
    const Character c = decode(p);
    const uint8_t kind = classes_[c.code];
    if ((kind & kNumber) != 0 || in_han(c.code) != han) return {0, 0};
    return {kind, c.bytes};
  }

  const uint8_t* run_piece(const uint8_t* p, const uint8_t* end, bool han, uint8_t kinds) const {
    for (Seen seen = see_piece(p, end, han); (seen.kind & kinds) != 0; seen = see_piece(p, end, han)) p += seen.bytes;
    return p;
  }

  static bool ascii_letter(const uint8_t* p, const uint8_t* end) {
    return p != end && static_cast<uint8_t>((*p | 32) - 'a') < 26;
  }

  // The end of the third split's match at `p`; `p` where there is none.
  const uint8_t* match(const uint8_t* p, const uint8_t* end, bool han) const {
    const Seen first = see_piece(p, end, han);
    const uint8_t* q = p + first.bytes;
    if (*p < 0x80 && (first.kind & (kPunctuation | kSymbol)) != 0 && ascii_letter(q, end)) {
      while (ascii_letter(q, end)) ++q;
      return q;
    }
    if ((first.kind & (kLetter | kMark)) != 0) return run_piece(q, end, han, kLetter | kMark);
    if ((first.kind & (kPunctuation | kSymbol)) != 0) {
      q = run_piece(q, end, han, kPunctuation | kSymbol);
      return han ? q : newlines(q, end);
    }
    const Seen second = see_piece(q, end, han);
    if ((second.kind & (kLetter | kMark)) != 0 && *p != '\r' && *p != '\n') {
      return run_piece(q + second.bytes, end, han, kLetter | kMark);
    }
    if (*p == ' ' && (second.kind & (kPunctuation | kSymbol)) != 0) {
      return newlines(run_piece(q + second.bytes, end, han, kPunctuation | kSymbol), end);
    }
    if ((first.kind & kSpace) == 0) return p;
    return spaces(p, true, [&](const uint8_t* at) { return see_piece(at, end, han); });
  }
};

}  // namespace mb::tokenizer
