// A byte-level byte pair encoding as tokenizer.json describes it: the same ids as Hugging Face's tokenizers. Not for
// two threads at once.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/ids.h"
#include "tokenizer/merges.h"
#include "tokenizer/seams.h"
#include "tokenizer/word_cache.h"

namespace mb::tokenizer {

// The order is that of BPE_PATTERNS in src/data/tokenizer/bpe-patterns.ts.
enum class Pattern : uint8_t { kGpt2, kCl100k, kLlama3, kO200k, kDeepSeek };
constexpr int kPatterns = 5;

struct BpeOptions {
  Pattern pattern;
  bool prefix_space;   // a space goes before every section that begins with none
  bool ignore_merges;  // a word that is a token is that token, whatever the merges say
  bool nfc;            // text is brought into normal form C
};

class Bpe {
 public:
  static constexpr uint32_t kNormalized = 1, kNoWord = 2;

  // What is wrong with the arguments; empty where nothing is. `tokens`: the bytes of all tokens in the order of their
  // ids; token i ends at ends[i] and begins where the one before ends. An empty one does not exist. `merges`: left,
  // right and new id of each. `added`: id of each, and the sum of kNormalized where it is looked for in
  // normalized text, and kNoWord where it is not in the vocabulary.
  static std::string problem(std::span<const uint8_t> tokens, std::span<const uint32_t> ends,
                             std::span<const uint32_t> merges, std::span<const uint32_t> added);
  // Of arguments without a problem.
  Bpe(std::span<const uint8_t> tokens, std::span<const uint32_t> ends, std::span<const uint32_t> merges,
      std::span<const uint32_t> added, BpeOptions options);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;

  // Appends the ids of a text, which is valid UTF-8. `section`: it stands between added tokens of text that is not
  // normalized, and is normalized. Otherwise false where the text must be normalized first: nothing is appended then.
  bool encode(std::span<const uint8_t> text, bool section, Ids& out);

  // Bytes of a token; empty where it does not exist.
  std::string_view token(int64_t id) const {
    if (id < 0 || id >= static_cast<int64_t>(ends_.size())) return {};
    const uint32_t begin = id == 0 ? 0 : ends_[static_cast<size_t>(id) - 1];
    return {reinterpret_cast<const char*>(tokens_.data()) + begin, ends_[static_cast<size_t>(id)] - begin};
  }

 private:
  void encode_normalized(const uint8_t* p, const uint8_t* end, Ids& out);
  void encode_section(const uint8_t* p, const uint8_t* end, Ids& out);
  template <class Scanner>
  void encode_words(const uint8_t* p, const uint8_t* end, Ids& out);
  void encode_new_word(const uint8_t* word, uint32_t size, Ids& out);
  void encode_long_word(const uint8_t* word, const uint8_t* end, Ids& out);
  bool append_token(const uint8_t* word, uint32_t size, Ids& out) const;

  const std::vector<uint8_t> tokens_;
  const std::vector<uint32_t> ends_;
  const BpeOptions options_;
  std::unique_ptr<Merges> merges_;
  std::unordered_map<std::string_view, int32_t> words_;  // with ignore_merges alone
  AddedTokens raw_, normalized_;
  WordCache cache_;  // of words, and of pieces of long ones
  Seams seams_;
  std::vector<uint8_t> prefixed_;
};

}  // namespace mb::tokenizer
