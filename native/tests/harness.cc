#include "tests/harness.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "core/dtype.h"

namespace mb::test {
namespace {

constexpr int64_t kGuard = 256;  // bytes; keeps data aligned as an arena's tensors are
constexpr unsigned char kGuardByte = 0xa5;

std::vector<unsigned char> encode(const Values& values, int dtype) {
  std::vector<unsigned char> out(values.size() * static_cast<size_t>(dtype_size(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = values[i];
    switch (dtype) {
      case MB_F32:
        reinterpret_cast<float*>(out.data())[i] = static_cast<float>(x);
        break;
      case MB_BF16:
        reinterpret_cast<uint16_t*>(out.data())[i] = f32_to_bf16(static_cast<float>(x));
        break;
      case MB_I32:
        reinterpret_cast<int32_t*>(out.data())[i] = static_cast<int32_t>(x);
        break;
      case MB_F64:
        reinterpret_cast<double*>(out.data())[i] = x;
        break;
      default:
        out[i] = static_cast<unsigned char>(x);
        break;
    }
  }
  return out;
}

Values decode(const std::vector<unsigned char>& bytes, int dtype) {
  Values out(bytes.size() / static_cast<size_t>(dtype_size(dtype)));
  for (size_t i = 0; i < out.size(); ++i) {
    switch (dtype) {
      case MB_F32:
        out[i] = static_cast<double>(reinterpret_cast<const float*>(bytes.data())[i]);
        break;
      case MB_BF16:
        out[i] = static_cast<double>(bf16_to_f32(reinterpret_cast<const uint16_t*>(bytes.data())[i]));
        break;
      case MB_I32:
        out[i] = reinterpret_cast<const int32_t*>(bytes.data())[i];
        break;
      case MB_F64:
        out[i] = reinterpret_cast<const double*>(bytes.data())[i];
        break;
      default:
        out[i] = bytes[i];
        break;
    }
  }
  return out;
}

}  // namespace

uint64_t Random::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double Random::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
}

Values Random::uniforms(int64_t n, double low, double high) {
  Values out(static_cast<size_t>(n));
  for (double& x : out) x = uniform(low, high);
  return out;
}

void Context::begin(const std::string& name) {
  case_ = name;
  uint64_t mixed = seed_;
  for (const char c : name) mixed = (mixed ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  random = Random(mixed);
}

void Context::fail(const std::string& text) {
  ++failures;
  printf("FAIL %s: %s\n", case_.c_str(), text.c_str());
}

void Context::is(bool holds, const std::string& what) {
  ++checks;
  if (!holds) fail(what);
}

void Context::run(int op, const std::vector<const Tensor*>& tensors, const std::vector<double>& scalars) {
  std::vector<mb_buf> bufs;
  for (const Tensor* t : tensors) bufs.push_back(t == nullptr ? mb_buf{nullptr, 0, MB_F32, 0} : t->buf());
  run_on(op, bufs, scalars);
}

void Context::run_on(int op, const std::vector<mb_buf>& tensors, const std::vector<double>& scalars) {
  const int status = table->ops[op](device, 0, tensors.data(), static_cast<int>(tensors.size()), scalars.data(),
                                    static_cast<int>(scalars.size()));
  is(status == MB_OK, "op " + std::to_string(op) + " returned " + std::to_string(status) + ": " +
                          (status == MB_OK ? "" : table->last_error()));
}

void Context::refuses(int op, const std::vector<mb_buf>& tensors, const std::vector<double>& scalars, int status,
                      const std::string& text) {
  const int found = table->ops[op](device, 0, tensors.data(), static_cast<int>(tensors.size()), scalars.data(),
                                   static_cast<int>(scalars.size()));
  const std::string message = found == MB_OK ? "" : table->last_error();
  is(found == status && message.find(text) != std::string::npos,
     "op " + std::to_string(op) + ": expected status " + std::to_string(status) + " with \"" + text + "\", found " +
         std::to_string(found) + ": " + message);
}

void Context::close(const std::string& what, const Values& found, const Values& expected, double limit, double floor) {
  double error = 0;
  double norm = 0;
  bool finite = found.size() == expected.size();
  for (size_t i = 0; finite && i < expected.size(); ++i) {
    finite = std::isfinite(found[i]);
    error += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  norm = std::fmax(norm, floor * floor * static_cast<double>(expected.size()));
  // An expected zero vector must be found exactly.
  const double relative = norm > 0 ? std::sqrt(error / norm) : error > 0 ? INFINITY : 0;
  char text[200];
  snprintf(text, sizeof(text), "%s: relative error %.3g, limit %.3g%s", what.c_str(), relative, limit,
           finite ? "" : "; not finite, or another size");
  is(finite && relative <= limit, text);
}

void Context::equal(const std::string& what, const Values& found, const Values& expected) {
  bool same = found.size() == expected.size();
  size_t i = 0;
  for (; same && i < expected.size(); ++i) {
    same = found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]));
  }
  char text[200];
  snprintf(text, sizeof(text), "%s: differs at element %zu: %.9g, expected %.9g", what.c_str(), i - 1,
           i > 0 && i <= found.size() ? found[i - 1] : 0.0, i > 0 && i <= expected.size() ? expected[i - 1] : 0.0);
  is(same, text);
}

void Context::digest(const void* bytes, int64_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int64_t i = 0; i < count; ++i) hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
  digests.push_back(hash);
}

Tensor::Tensor(Context& context, int64_t n, int dtype)
    : context_(context), n_(n), dtype_(dtype), bytes_(n * dtype_size(dtype)) {
  const int64_t total = bytes_ + 2 * kGuard;
  void* base = nullptr;
  const int status = context_.table->alloc(context_.device, total, &base);
  context_.is(status == MB_OK, std::string("alloc: ") + (status == MB_OK ? "" : context_.table->last_error()));
  base_ = static_cast<char*>(base);
  data_ = base_ + kGuard;
  std::vector<unsigned char> fill(static_cast<size_t>(total), kGuardByte);
  memset(fill.data() + kGuard, 0xff, static_cast<size_t>(bytes_));
  const mb_buf whole = {base_, total, MB_U8, 0};
  context_.table->write(context_.device, 0, &whole, fill.data());
}

Tensor::Tensor(Context& context, const Values& values, int dtype)
    : Tensor(context, static_cast<int64_t>(values.size()), dtype) {
  write(values);
}

Tensor::~Tensor() {
  const int64_t total = bytes_ + 2 * kGuard;
  std::vector<unsigned char> bytes(static_cast<size_t>(total));
  const mb_buf whole = {base_, total, MB_U8, 0};
  context_.table->read(context_.device, 0, &whole, bytes.data());
  bool whole_guards = true;
  for (int64_t i = 0; i < kGuard; ++i) {
    whole_guards = whole_guards && bytes[static_cast<size_t>(i)] == kGuardByte &&
                   bytes[static_cast<size_t>(total - 1 - i)] == kGuardByte;
  }
  context_.is(whole_guards, "an op wrote outside a tensor of " + std::to_string(n_) + " elements");
  context_.table->release(context_.device, base_);
}

void Tensor::write(const Values& values) {
  const std::vector<unsigned char> bytes = encode(values, dtype_);
  const mb_buf dst = buf();
  if (bytes_ > 0) context_.table->write(context_.device, 0, &dst, bytes.data());
  values_ = decode(bytes, dtype_);
}

Values Tensor::read() const {
  std::vector<unsigned char> bytes(static_cast<size_t>(bytes_));
  const mb_buf src = buf();
  if (bytes_ > 0) context_.table->read(context_.device, 0, &src, bytes.data());
  context_.digest(bytes.data(), bytes_);
  return decode(bytes, dtype_);
}

mb_buf Tensor::part(int64_t first, int64_t n) const {
  const int64_t size = dtype_size(dtype_);
  return {data_ + first * size, n * size, dtype_, 0};
}

Values rounded(const Values& values, int dtype) { return decode(encode(values, dtype), dtype); }

double tolerance(int act, int64_t k) {
  return act == MB_BF16 ? 1e-2 : 5e-6 * std::fmax(1.0, std::sqrt(static_cast<double>(k) / 8192.0));
}

}  // namespace mb::test
