#include <vector>

#include "node/addon.h"
#include "node/errors.h"
#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"

namespace mb::node {
namespace {

// A copy of a typed array: another thread may write into the caller's memory while it is checked and read.
template <class T>
std::vector<T> values(const Napi::CallbackInfo& info, size_t i, const char* name, napi_typedarray_type type,
                      const char* type_name) {
  if (!info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != type) {
    throw_argument(info.Env(), "argument %s must be a %s", name, type_name);
  }
  const auto array = info[i].As<Napi::TypedArrayOf<T>>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

}  // namespace

tokenizer::Bpe& Addon::bpe(Info info) const {
  const double handle = number(info, 0, "tokenizer");
  const std::shared_ptr<tokenizer::Bpe>& found = tokenizers_.find(handle);
  if (!found) throw_argument(info.Env(), "tokenizer %g does not exist", handle);
  return *found;
}

Napi::Value Addon::bpe_create(Info info) {
  const auto tokens = values<uint8_t>(info, 0, "tokens", napi_uint8_array, "Uint8Array");
  const auto ends = values<uint32_t>(info, 1, "ends", napi_uint32_array, "Uint32Array");
  const auto merges = values<uint32_t>(info, 2, "merges", napi_uint32_array, "Uint32Array");
  const auto added = values<uint32_t>(info, 3, "added", napi_uint32_array, "Uint32Array");
  const int64_t pattern = integer(info, 4, "pattern", 0, tokenizer::kPatterns - 1);
  const int64_t flags = integer(info, 5, "flags", 0, 7);
  const std::string problem = tokenizer::Bpe::problem(tokens, ends, merges, added);
  if (!problem.empty()) throw_argument(info.Env(), "the tokenizer does not hold together: %s", problem.c_str());
  const tokenizer::BpeOptions options = {static_cast<tokenizer::Pattern>(pattern), (flags & 1) != 0, (flags & 2) != 0,
                                         (flags & 4) != 0};
  const int64_t handle = tokenizers_.add(std::make_shared<tokenizer::Bpe>(tokens, ends, merges, added, options));
  return Napi::Number::New(info.Env(), static_cast<double>(handle));
}

void Addon::bpe_free(Info info) {
  bpe(info);
  tokenizers_.remove(number(info, 0, "tokenizer"));
}

bool Addon::bpe_ids(Info info, tokenizer::Ids& ids) {
  tokenizer::Bpe& encoder = bpe(info);
  const std::vector<uint8_t> text = values<uint8_t>(info, 1, "text", napi_uint8_array, "Uint8Array");
  if (!info[2].IsBoolean()) throw_argument(info.Env(), "argument section must be a boolean");
  if (text.size() > INT32_MAX) throw_argument(info.Env(), "a text of %zu bytes, at most %d", text.size(), INT32_MAX);
  const size_t invalid = tokenizer::find_invalid(text.data(), text.size());
  if (invalid != text.size()) throw_argument(info.Env(), "byte %zu of the text begins no UTF-8 character", invalid);
  ids.room(text.size() / 3);
  return encoder.encode(text, info[2].As<Napi::Boolean>(), ids);
}

Napi::Value Addon::bpe_encode(Info info) {
  tokenizer::Ids ids;
  if (!bpe_ids(info, ids)) return info.Env().Null();
  Napi::Int32Array out = Napi::Int32Array::New(info.Env(), ids.size());
  std::copy(ids.data(), ids.data() + ids.size(), out.Data());
  return out;
}

Napi::Value Addon::bpe_count(Info info) {
  tokenizer::Ids ids;
  if (!bpe_ids(info, ids)) return info.Env().Null();
  return Napi::Number::New(info.Env(), static_cast<double>(ids.size()));
}

Napi::Value Addon::bpe_decode(Info info) {
  const tokenizer::Bpe& decoder = bpe(info);
  std::string text;
  for (const int32_t id : values<int32_t>(info, 1, "ids", napi_int32_array, "Int32Array")) text += decoder.token(id);
  Napi::Uint8Array out = Napi::Uint8Array::New(info.Env(), text.size());
  std::copy(text.begin(), text.end(), out.Data());
  return out;
}

}  // namespace mb::node
