#include "core/op_args.h"

#include <cmath>

#include "core/dtype.h"
#include "core/error.h"

namespace mb {

using ll = long long;

OpArgs::OpArgs(const char* op, const mb_buf* t, int nt, int want_nt, const double* s, int ns, int want_ns)
    : op_(op), t_(t), s_(s) {
  if (nt != want_nt || ns != want_ns) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: got %d tensors and %d scalars, takes %d and %d", op, nt, ns, want_nt, want_ns);
  }
}

int64_t OpArgs::size(int i, const char* name, int64_t min) {
  if (!ok()) return 0;
  const double x = s_[i];
  if (!(x >= static_cast<double>(min) && x <= 9007199254740992.0) || x != std::floor(x)) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: %s is %g, expected an integer >= %lld", op_, name, x, static_cast<ll>(min));
    return 0;
  }
  return static_cast<int64_t>(x);
}

bool OpArgs::flag(int i, const char* name) {
  if (!ok()) return false;
  if (s_[i] != 0 && s_[i] != 1) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: %s is %g, expected 0 or 1", op_, name, s_[i]);
  }
  return s_[i] == 1;
}

double OpArgs::real(int i, const char* name) {
  if (!ok()) return 0;
  if (!std::isfinite(s_[i])) status_ = fail(MB_ERR_ARGUMENT, "%s: %s is %g, expected a number", op_, name, s_[i]);
  return s_[i];
}

void OpArgs::require(bool holds, const char* what) {
  if (ok() && !holds) status_ = fail(MB_ERR_ARGUMENT, "%s: expected %s", op_, what);
}

void* OpArgs::checked(int i, const char* name, int64_t count) {
  const mb_buf& b = t_[i];
  const int64_t size = dtype_size(b.dtype);
  if (b.ptr == nullptr) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: tensor %s is absent", op_, name);
  } else if (size == 0) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: %s has unknown dtype %d", op_, name, b.dtype);
  } else if (reinterpret_cast<uintptr_t>(b.ptr) % static_cast<uintptr_t>(size) != 0) {
    status_ =
        fail(MB_ERR_ARGUMENT, "%s: %s is not aligned to its %lld-byte elements", op_, name, static_cast<ll>(size));
  } else if (b.bytes / size < count) {
    status_ =
        fail(MB_ERR_ARGUMENT, "%s: %s has %lld bytes, needs %lld %s elements (%lld bytes)", op_, name,
             static_cast<ll>(b.bytes), static_cast<ll>(count), dtype_name(b.dtype), static_cast<ll>(count * size));
  }
  return ok() ? b.ptr : nullptr;
}

void* OpArgs::any(int i, const char* name, int64_t count) { return ok() ? checked(i, name, count) : nullptr; }

void* OpArgs::f32_or_bf16(int i, const char* name, int64_t count) {
  if (ok() && t_[i].ptr != nullptr && t_[i].dtype != MB_F32 && t_[i].dtype != MB_BF16) {
    status_ = fail(MB_ERR_ARGUMENT, "%s: %s is %s, expected f32 or bf16", op_, name, dtype_name(t_[i].dtype));
  }
  return any(i, name, count);
}

void* OpArgs::tensor(int i, const char* name, int64_t count, int dtype) {
  if (!ok()) return nullptr;
  if (t_[i].ptr != nullptr && t_[i].dtype != dtype) {
    if (dtype == MB_F32 && t_[i].dtype == MB_BF16) {
      status_ = fail(MB_ERR_UNSUPPORTED,
                     "%s: %s is bf16, and the CPU backend computes in float32 (mixed_precision: fp32)", op_, name);
    } else {
      status_ =
          fail(MB_ERR_ARGUMENT, "%s: %s is %s, expected %s", op_, name, dtype_name(t_[i].dtype), dtype_name(dtype));
    }
    return nullptr;
  }
  return checked(i, name, count);
}

}  // namespace mb
