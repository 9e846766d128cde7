// Reads and checks the arguments of one op call: counts first, then each tensor's presence, dtype, alignment and size.
// The first failure is kept (its text names the op and the argument), later reads return zeros, so an op reads
// everything and asks ok() once.
#pragma once
#include <cstdint>

#include "core/abi.h"

namespace mb {

class OpArgs {
 public:
  OpArgs(const char* op, const mb_buf* t, int nt, int want_nt, const double* s, int ns, int want_ns);

  bool ok() const { return status_ == MB_OK; }
  int status() const { return status_; }

  // Scalars. size: an integer >= min. flag: 0 or 1. real: any finite number.
  int64_t size(int i, const char* name, int64_t min = 1);
  bool flag(int i, const char* name);
  double real(int i, const char* name);

  // Tensors of at least `count` elements. The *_opt forms return null for an absent tensor.
  float* f32(int i, const char* name, int64_t count) { return static_cast<float*>(tensor(i, name, count, MB_F32)); }
  float* f32_opt(int i, const char* name, int64_t count) { return absent(i) ? nullptr : f32(i, name, count); }
  int32_t* i32(int i, const char* name, int64_t count) { return static_cast<int32_t*>(tensor(i, name, count, MB_I32)); }
  double* f64(int i, const char* name, int64_t count) { return static_cast<double*>(tensor(i, name, count, MB_F64)); }
  // Of any dtype, or of one of two; ask dtype(i) for which.
  void* any(int i, const char* name, int64_t count);
  void* f32_or_bf16(int i, const char* name, int64_t count);

  int dtype(int i) const { return status_ == MB_OK ? t_[i].dtype : MB_F32; }
  int64_t bytes(int i) const { return status_ == MB_OK ? t_[i].bytes : 0; }
  bool absent(int i) const { return status_ == MB_OK && t_[i].ptr == nullptr; }

  // Fails unless `holds`; `what` says what was expected.
  void require(bool holds, const char* what);

 private:
  void* tensor(int i, const char* name, int64_t count, int dtype);
  void* checked(int i, const char* name, int64_t count);

  const char* op_;
  const mb_buf* t_;
  const double* s_;
  int status_ = MB_OK;
};

}  // namespace mb
