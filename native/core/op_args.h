// Reads and checks the arguments of one op call: counts first, then each tensor's presence, dtype, alignment, size and
// overlaps. Both backends read through this, so that they refuse the same calls with the same texts.
//
// The first failure is kept (its text names the op and the argument, by ops.def); later reads return harmless values,
// so an op reads everything and asks ok() once.
#pragma once
#include <math.h>
#include <stdint.h>

#include "core/abi.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/op_table.h"

namespace mb {

// Product of sizes, saturating far above any memory, so that the check of the bytes refuses what would overflow.
inline int64_t times(int64_t a, int64_t b) {
  constexpr int64_t kMost = INT64_MAX >> 5;
  int64_t r;
  return __builtin_mul_overflow(a, b, &r) || r > kMost ? kMost : r;
}

// Elements from the first to the last of `rows` rows of `cols` that start `ld` apart.
inline int64_t extent(int64_t rows, int64_t ld, int64_t cols) { return rows <= 0 ? 0 : times(rows - 1, ld) + cols; }

class OpArgs {
 public:
  OpArgs(const OpInfo& op, const mb_buf* t, int nt, const double* s, int ns) : op_(op), t_(t), s_(s) {
    const int tensors = count_words(op.tensors), scalars = count_words(op.scalars);
    if (nt != tensors || ns != scalars) {
      fail("got %d tensors and %d scalars, takes %d and %d", nt, ns, tensors, scalars);
    }
  }

  bool ok() const { return status_ == MB_OK; }
  int status() const { return status_; }

  // Scalars. size: an integer in [low, high]. flag: 0 or 1. real: any finite number. value: infinite or not a number
  // too.
  int64_t size(int i, int64_t low = 0, int64_t high = kMostElements) {
    if (!ok()) return low;
    const double x = s_[i];
    if (!(x >= static_cast<double>(low) && x <= static_cast<double>(high)) || x != floor(x)) {
      const Word name = scalar_name(i);
      if (x < static_cast<double>(low) || high == kMostElements) {
        fail("%.*s is %g, expected an integer >= %lld", name.length, name.text, x, static_cast<long long>(low));
      } else {
        fail("%.*s is %g, expected an integer from %lld to %lld", name.length, name.text, x,
             static_cast<long long>(low), static_cast<long long>(high));
      }
      return low;
    }
    return static_cast<int64_t>(x);
  }

  bool flag(int i) {
    if (!ok()) return false;
    const Word name = scalar_name(i);
    if (s_[i] != 0 && s_[i] != 1) fail("%.*s is %g, expected 0 or 1", name.length, name.text, s_[i]);
    return s_[i] == 1;
  }

  double real(int i) {
    if (!ok()) return 0;
    const Word name = scalar_name(i);
    if (!isfinite(s_[i])) fail("%.*s is %g, expected a finite number", name.length, name.text, s_[i]);
    return s_[i];
  }

  double value(int i) const { return ok() ? s_[i] : 0; }

  bool present(int i) const { return ok() && t_[i].ptr != nullptr; }
  int dtype(int i) const { return ok() ? t_[i].dtype : MB_F32; }
  int64_t bytes(int i) const { return ok() ? t_[i].bytes : 0; }
  const void* pointer(int i) const { return ok() ? t_[i].ptr : nullptr; }

  // The dtype of tensor i, which must be f32 or bf16.
  int act(int i) {
    const int found = dtype(i);
    const Word name = tensor_name(i);
    if (present(i) && found != MB_F32 && found != MB_BF16) {
      fail("%.*s is %s, expected f32 or bf16", name.length, name.text, dtype_name(found));
    }
    return found;
  }

  // Tensor i as at least `count` elements of `dtype`.
  void* tensor(int i, int dtype, int64_t count) {
    if (!ok()) return nullptr;
    const mb_buf& b = t_[i];
    const Word name = tensor_name(i);
    const int64_t size = dtype_size(dtype);
    if (b.ptr == nullptr) {
      fail("tensor %.*s is absent", name.length, name.text);
    } else if (b.dtype != dtype) {
      fail("%.*s is %s, expected %s", name.length, name.text, dtype_name(b.dtype), dtype_name(dtype));
    } else if (size == 0) {
      fail("%.*s has unknown dtype %d", name.length, name.text, dtype);
    } else if (reinterpret_cast<uintptr_t>(b.ptr) % static_cast<uintptr_t>(size) != 0) {
      fail("%.*s is not aligned to its %lld-byte elements", name.length, name.text, static_cast<long long>(size));
    } else if (b.bytes / size < count) {
      fail("%.*s has %lld bytes, needs %lld %s elements (%lld bytes)", name.length, name.text,
           static_cast<long long>(b.bytes), static_cast<long long>(count), dtype_name(dtype),
           static_cast<long long>(times(count, size)));
    }
    return ok() ? b.ptr : nullptr;
  }

  // The same, and aligned for 16-byte accesses.
  void* tensor16(int i, int dtype, int64_t count) {
    void* p = tensor(i, dtype, count);
    check_aligned16(i);
    return p;
  }

  float* f32(int i, int64_t count) { return static_cast<float*>(tensor(i, MB_F32, count)); }
  float* f32_opt(int i, int64_t count) { return present(i) ? f32(i, count) : nullptr; }
  int32_t* i32(int i, int64_t count) { return static_cast<int32_t*>(tensor(i, MB_I32, count)); }
  double* f64(int i, int64_t count) { return static_cast<double*>(tensor(i, MB_F64, count)); }

  // Tensor i of any dtype, at least `bytes` long.
  void* memory(int i, int64_t bytes) {
    if (!ok()) return nullptr;
    const mb_buf& b = t_[i];
    const Word name = tensor_name(i);
    if (b.ptr == nullptr) {
      fail("tensor %.*s is absent", name.length, name.text);
    } else if (b.bytes < bytes) {
      fail("%.*s has %lld bytes, needs %lld", name.length, name.text, static_cast<long long>(b.bytes),
           static_cast<long long>(bytes));
    }
    return ok() ? b.ptr : nullptr;
  }

  // Scratch of any dtype, at least `bytes` long and aligned for 16-byte accesses; null where none is needed.
  float* scratch(int i, int64_t bytes) {
    if (bytes == 0) return nullptr;
    void* p = memory(i, bytes);
    check_aligned16(i);
    return ok() ? static_cast<float*>(p) : nullptr;
  }

  // Tensors whose memory must not overlap, because one is read while the other is written. Absent ones do not.
  void distinct(int i, int j) {
    if (present(i) && present(j) && overlap(t_[i].ptr, t_[i].bytes, t_[j].ptr, t_[j].bytes)) {
      const Word a = tensor_name(i), b = tensor_name(j);
      fail("%.*s and %.*s overlap", a.length, a.text, b.length, b.text);
    }
  }

  // Tensors that may be the same memory, but not overlap otherwise.
  void same_or_distinct(int i, int j) {
    if (ok() && t_[i].ptr != t_[j].ptr) distinct(i, j);
  }

  // Rows of `bytes` bytes, `stride` apart, that may lie between each other but not over each other.
  void disjoint_rows(int i, int64_t bytes, int64_t stride, int j, int64_t other_bytes, int64_t other_stride) {
    if (!present(i) || !present(j) || !overlap(t_[i].ptr, t_[i].bytes, t_[j].ptr, t_[j].bytes)) return;
    if (stride == other_stride && stride > 0) {
      const int64_t apart = static_cast<const char*>(t_[j].ptr) - static_cast<const char*>(t_[i].ptr);
      const int64_t at = (apart % stride + stride) % stride;  // where a row of j begins in a row of i
      if (at >= bytes && at + other_bytes <= stride) return;
    }
    const Word a = tensor_name(i), b = tensor_name(j);
    fail("rows of %.*s and %.*s overlap", a.length, a.text, b.length, b.text);
  }

  // Fails unless `holds`; `what` says what was expected.
  void require(bool holds, const char* what) {
    if (!holds) fail("expected %s", what);
  }

  // The CPU computes in float32: activations of tensor i's dtype are refused by name.
  void only_f32(int i) {
    const Word name = tensor_name(i);
    if (present(i) && t_[i].dtype == MB_BF16) {
      status_ = mb::fail(MB_ERR_UNSUPPORTED,
                         "%s: %.*s is bf16, and the CPU backend computes in float32 (mixed_precision: fp32)", op_.name,
                         name.length, name.text);
    }
  }

  void fail(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    if (!ok()) return;
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    status_ = mb::fail(MB_ERR_ARGUMENT, "%s: %s", op_.name, text);
  }

 private:
  static constexpr int64_t kMostElements = int64_t{1} << 53;  // what a scalar counts exactly

  static bool overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
    const auto* p = static_cast<const char*>(a);
    const auto* q = static_cast<const char*>(b);
    return p < q + b_bytes && q < p + a_bytes;
  }

  void check_aligned16(int i) {
    const Word name = tensor_name(i);
    if (present(i) && reinterpret_cast<uintptr_t>(t_[i].ptr) % 16 != 0) {
      fail("%.*s is not aligned to 16 bytes", name.length, name.text);
    }
  }

  Word tensor_name(int i) const { return word_at(op_.tensors, i); }
  Word scalar_name(int i) const { return word_at(op_.scalars, i); }

  const OpInfo& op_;
  const mb_buf* t_;
  const double* s_;
  int status_ = MB_OK;
};

}  // namespace mb
