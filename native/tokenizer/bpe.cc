#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstdio>

#include "tokenizer/pretokenize.h"

namespace mb::tokenizer {
namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[200];
  snprintf(text, sizeof(text), pattern, args...);
  return text;
}

std::string_view token_of(std::span<const uint8_t> tokens, std::span<const uint32_t> ends, uint32_t id) {
  const uint32_t begin = id == 0 ? 0 : ends[id - 1];
  return {reinterpret_cast<const char*>(tokens.data()) + begin, ends[id] - begin};
}

// Which tokens a word can be: those of the vocabulary.
std::vector<bool> find_words(size_t tokens, std::span<const uint32_t> added) {
  std::vector<bool> words(tokens, true);
  for (size_t i = 0; i < added.size(); i += 2) {
    if ((added[i + 1] & Bpe::kNoWord) != 0) words[added[i]] = false;
  }
  return words;
}

// The id of each byte by itself; UINT32_MAX where it has none.
void find_bytes(std::span<const uint8_t> tokens, std::span<const uint32_t> ends, const std::vector<bool>& words,
                uint32_t (&ids)[256]) {
  std::fill(ids, ids + 256, UINT32_MAX);
  for (uint32_t id = 0; id < ends.size(); ++id) {
    const std::string_view token = token_of(tokens, ends, id);
    if (words[id] && token.size() == 1) ids[static_cast<uint8_t>(token[0])] = id;
  }
}

}  // namespace

std::string Bpe::problem(std::span<const uint8_t> tokens, std::span<const uint32_t> ends,
                         std::span<const uint32_t> merges, std::span<const uint32_t> added) {
  if (ends.size() >= Merges::kMaxIds) return format("%zu tokens, at most %u", ends.size(), Merges::kMaxIds - 1);
  if (tokens.size() > UINT32_MAX) return format("%zu bytes of tokens", tokens.size());
  uint32_t begin = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] < begin) return format("token %zu ends before it begins", i);
    begin = ends[i];
  }
  if (begin != tokens.size()) return format("the tokens end at %u of %zu bytes", begin, tokens.size());
  if (added.size() % 2 != 0) return format("%zu numbers of added tokens, not 2 of each", added.size());
  for (size_t i = 0; i < added.size(); i += 2) {
    if (added[i] >= ends.size() || token_of(tokens, ends, added[i]).empty()) {
      return format("there is no added token %u", added[i]);
    }
    if (added[i + 1] > 3) return format("added token %u: %u is not from 0 to 3", added[i], added[i + 1]);
  }
  uint32_t bytes[256];
  find_bytes(tokens, ends, find_words(ends.size(), added), bytes);
  for (int i = 0; i < 256; ++i) {
    if (bytes[i] == UINT32_MAX) return format("byte %d is no token", i);
  }
  if (merges.size() % 3 != 0) return format("%zu numbers of merges, not 3 of each", merges.size());
  if (merges.size() / 3 > Merges::kMaxMerges) return format("%zu merges", merges.size() / 3);
  for (size_t i = 0; i < merges.size(); i += 3) {
    for (size_t j = i; j < i + 3; ++j) {
      if (merges[j] >= ends.size()) return format("merge %zu: there is no token %u", i / 3, merges[j]);
    }
    const std::string_view left = token_of(tokens, ends, merges[i]);
    const std::string_view right = token_of(tokens, ends, merges[i + 1]);
    const std::string_view both = token_of(tokens, ends, merges[i + 2]);
    if (left.empty() || right.empty() || both.size() != left.size() + right.size() || !both.starts_with(left) ||
        !both.ends_with(right)) {
      return format("merge %zu: token %u is not %u and %u", i / 3, merges[i + 2], merges[i], merges[i + 1]);
    }
  }
  return {};
}

Bpe::Bpe(std::span<const uint8_t> tokens, std::span<const uint32_t> ends, std::span<const uint32_t> merges,
         std::span<const uint32_t> added, BpeOptions options)
    : tokens_(tokens.begin(), tokens.end()), ends_(ends.begin(), ends.end()), options_(options) {
  const std::vector<bool> words = find_words(ends_.size(), added);
  uint32_t bytes[256];
  find_bytes(tokens_, ends_, words, bytes);
  merges_ = std::make_unique<Merges>(merges.data(), static_cast<uint32_t>(merges.size() / 3), bytes);
  if (options_.ignore_merges) {
    words_.reserve(ends_.size());
    for (uint32_t id = 0; id < ends_.size(); ++id) {
      if (words[id] && !token(id).empty()) words_.emplace(token(id), static_cast<int32_t>(id));
    }
  }
  std::vector<bool> seen(ends_.size());
  for (size_t i = 2; i < merges.size(); i += 3) {
    if (!seen[merges[i]]) seams_.add(token(merges[i]));
    seen[merges[i]] = true;
  }
  for (size_t i = 0; i < added.size(); i += 2) {
    AddedTokens& list = (added[i + 1] & kNormalized) != 0 ? normalized_ : raw_;
    list.add(token(added[i]), static_cast<int32_t>(added[i]));
  }
}

bool Bpe::encode(std::span<const uint8_t> text, bool section, Ids& out) {
  const uint8_t* p = text.data();
  const uint8_t* const end = p + text.size();
  if (section) {
    encode_normalized(p, end, out);
    return true;
  }
  if (options_.nfc && !surely_nfc(p, text.size())) return false;
  while (p != end) {
    const AddedTokens::Match match = raw_.find(p, end);
    encode_normalized(p, match.begin, out);
    if (match.id >= 0) out.push(match.id);
    p = match.end;
  }
  return true;
}

void Bpe::encode_normalized(const uint8_t* p, const uint8_t* end, Ids& out) {
  while (p != end) {
    const AddedTokens::Match match = normalized_.find(p, end);
    if (match.begin != p) encode_section(p, match.begin, out);
    if (match.id >= 0) out.push(match.id);
    p = match.end;
  }
}

void Bpe::encode_section(const uint8_t* p, const uint8_t* end, Ids& out) {
  if (options_.prefix_space && *p != ' ') {
    prefixed_.assign(1, ' ');
    prefixed_.insert(prefixed_.end(), p, end);
    p = prefixed_.data();
    end = p + prefixed_.size();
  }
  switch (options_.pattern) {
    case Pattern::kGpt2:
      return encode_words<Gpt2Scanner>(p, end, out);
    case Pattern::kCl100k:
      return encode_words<Cl100kScanner<1>>(p, end, out);
    case Pattern::kLlama3:
      return encode_words<Cl100kScanner<3>>(p, end, out);
    case Pattern::kO200k:
      return encode_words<O200kScanner>(p, end, out);
    case Pattern::kDeepSeek:
      return encode_words<DeepSeekScanner>(p, end, out);
  }
}

template <class Scanner>
void Bpe::encode_words(const uint8_t* p, const uint8_t* end, Ids& out) {
  const Scanner scanner;
  while (p != end) {
    const uint8_t* const q = scanner.next(p, end);
    const auto size = static_cast<uint32_t>(q - p);
    if (size > WordCache::kMaxBytes) {
      encode_long_word(p, q, out);
    } else {
      const WordCache::Key key = WordCache::key(p, size, static_cast<size_t>(end - p));
      if (!cache_.find(key, out)) {
        const size_t before = out.size();
        encode_new_word(p, size, out);
        cache_.keep(key, out.data() + before, out.size() - before);
      }
    }
    p = q;
  }
}

void Bpe::encode_new_word(const uint8_t* word, uint32_t size, Ids& out) {
  if (!append_token(word, size, out)) merges_->apply(word, size, out);
}

void Bpe::encode_long_word(const uint8_t* p, const uint8_t* end, Ids& out) {
  if (append_token(p, static_cast<uint32_t>(end - p), out)) return;
  while (p != end) {
    const uint8_t* const q = seams_.next(p, end);
    const auto size = static_cast<uint32_t>(q - p);
    if (size > WordCache::kMaxBytes) {
      merges_->apply(p, size, out);
    } else {
      // A piece is not looked up among the tokens, so its ids need not be those of the same word.
      const uint32_t kind = options_.ignore_merges ? WordCache::kPiece : 0;
      const WordCache::Key key = WordCache::key(p, size, static_cast<size_t>(end - p), kind);
      if (!cache_.find(key, out)) {
        const size_t before = out.size();
        merges_->apply(p, size, out);
        cache_.keep(key, out.data() + before, out.size() - before);
      }
    }
    p = q;
  }
}

bool Bpe::append_token(const uint8_t* word, uint32_t size, Ids& out) const {
  if (!options_.ignore_merges) return false;
  const auto found = words_.find({reinterpret_cast<const char*>(word), size});
  if (found == words_.end()) return false;
  out.push(found->second);
  return true;
}

}  // namespace mb::tokenizer
