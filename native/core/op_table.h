// What ops.def and comm_ops.def say of an op, as data.
#pragma once
#include "core/abi.h"

namespace mb {

struct OpInfo {
  const char* name;
  const char* tensors;  // "name:access ..."
  const char* scalars;  // "name ..."
};

inline constexpr OpInfo kOps[] = {
#define MB_OP(NAME, name, tensors, scalars) {#name, tensors, scalars},
#include "core/ops.def"
#undef MB_OP
};

inline constexpr OpInfo kCommOps[] = {
#define MB_COMM_OP(NAME, name, tensors, scalars) {#name, tensors, scalars},
#include "core/comm_ops.def"
#undef MB_COMM_OP
};

// A word of a list that spaces separate, up to a colon: for "%.*s".
struct Word {
  const char* text;
  int length;
};

inline int count_words(const char* list) {
  int count = 0;
  for (const char* c = list; *c != '\0'; ++c) count += *c != ' ' && (c == list || c[-1] == ' ') ? 1 : 0;
  return count;
}

inline Word word_at(const char* list, int index) {
  const char* c = list;
  for (; index > 0 && *c != '\0'; ++c) index -= *c == ' ' ? 1 : 0;
  int length = 0;
  while (c[length] != '\0' && c[length] != ' ' && c[length] != ':') ++length;
  return {c, length};
}

}  // namespace mb
