// Added tokens: strings that are a token wherever they stand in a text, whatever the words are.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace mb::tokenizer {

class AddedTokens {
 public:
  // `content` is not empty. The same content again takes the new id.
  void add(std::string_view content, int32_t id);

  struct Match {
    const uint8_t* begin;  // the end of the text where nothing was found
    const uint8_t* end;
    int32_t id;
  };
  // The leftmost token in the text, and of those that begin there the longest.
  Match find(const uint8_t* p, const uint8_t* end) const;

 private:
  // A trie: children are a list of siblings, for nearly all nodes have one.
  struct Node {
    int32_t id = -1;
    uint32_t child = 0, sibling = 0;  // 0 is none: the root is nobody's
    uint8_t byte = 0;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  uint32_t first_[256] = {};  // the root's children
  int firsts_ = 0;
  uint8_t only_first_ = 0;
};

}  // namespace mb::tokenizer
