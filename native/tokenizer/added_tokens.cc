#include "tokenizer/added_tokens.h"

namespace mb::tokenizer {

void AddedTokens::add(std::string_view content, int32_t id) {
  uint32_t node = 0;
  for (size_t i = 0; i < content.size(); ++i) {
    const auto byte = static_cast<uint8_t>(content[i]);
    uint32_t next = i == 0 ? first_[byte] : nodes_[node].child;
    while (next != 0 && nodes_[next].byte != byte) next = nodes_[next].sibling;
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      Node made;
      made.byte = byte;
      if (i == 0) {
        first_[byte] = next;
        only_first_ = byte;
        ++firsts_;
      } else {
        made.sibling = nodes_[node].child;
        nodes_[node].child = next;
      }
      nodes_.push_back(made);
    }
    node = next;
  }
  nodes_[node].id = id;
}

AddedTokens::Match AddedTokens::find(const uint8_t* p, const uint8_t* end) const {
  if (firsts_ == 0) return {end, end, -1};
  for (; p != end; ++p) {
    if (firsts_ == 1) {
      p = static_cast<const uint8_t*>(memchr(p, only_first_, static_cast<size_t>(end - p)));
      if (p == nullptr) break;
    }
    Match match = {p, nullptr, -1};
    uint32_t node = first_[*p];
    for (const uint8_t* q = p + 1; node != 0; ++q) {
      if (nodes_[node].id >= 0) {
        match.end = q;
        match.id = nodes_[node].id;
      }
      if (q == end) break;
      node = nodes_[node].child;
      while (node != 0 && nodes_[node].byte != *q) node = nodes_[node].sibling;
    }
    if (match.id >= 0) return match;
  }
  return {end, end, -1};
}

}  // namespace mb::tokenizer
