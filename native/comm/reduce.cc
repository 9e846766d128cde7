#include "comm/reduce.h"

#include <algorithm>
#include <type_traits>

#include "core/abi.h"
#include "core/dtype.h"

// Each kernel is compiled for AVX-512, AVX2 and plain x86-64; which one serves is chosen when the library is loaded,
// where glibc can (ifunc) and GCC knows these levels (12). All give the same bits.
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define MB_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MB_CLONES
#endif

namespace mb::comm {
namespace {

constexpr int64_t kBlock = 1024;  // elements accumulated on the stack at a time

struct Bf16 {
  uint16_t bits;
};

template <typename T>
struct Traits {
  using Acc = T;
  static Acc load(T x) { return x; }
  static T store(Acc x) { return x; }
};
template <>
struct Traits<Bf16> {
  using Acc = float;
  static float load(Bf16 x) { return bf16_to_f32(x.bits); }
  static Bf16 store(float x) { return {f32_to_bf16(x)}; }
};

template <bool kMax, typename Acc>
inline Acc combine(Acc a, Acc b) {
  if constexpr (kMax) return a > b || a != a ? a : b;
  if constexpr (std::is_same_v<Acc, int32_t>) return static_cast<int32_t>(uint32_t(a) + uint32_t(b));
  return a + b;
}

template <typename T, bool kMax>
[[gnu::always_inline]] inline void reduce_as(void* out, const void* const* src, int sources, int64_t n) {
  using Acc = typename Traits<T>::Acc;
  Acc acc[kBlock];
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t m = std::min(kBlock, n - at);
    const T* first = static_cast<const T*>(src[0]) + at;
    for (int64_t i = 0; i < m; i++) acc[i] = Traits<T>::load(first[i]);
    for (int s = 1; s < sources; s++) {
      // Keeps GCC from exchanging the two loops, which would leave them without vectors and four times slower.
      asm volatile("" : : "r"(acc) : "memory");
      const T* next = static_cast<const T*>(src[s]) + at;
      for (int64_t i = 0; i < m; i++) acc[i] = combine<kMax>(acc[i], Traits<T>::load(next[i]));
    }
    T* to = static_cast<T*>(out) + at;
    for (int64_t i = 0; i < m; i++) to[i] = Traits<T>::store(acc[i]);
  }
}

#define MB_REDUCE(name, type, is_max)                                              \
  MB_CLONES void name(void* out, const void* const* src, int sources, int64_t n) { \
    reduce_as<type, is_max>(out, src, sources, n);                                 \
  }
MB_REDUCE(sum_f32, float, false)
MB_REDUCE(max_f32, float, true)
MB_REDUCE(sum_bf16, Bf16, false)
MB_REDUCE(max_bf16, Bf16, true)
MB_REDUCE(sum_i32, int32_t, false)
MB_REDUCE(max_i32, int32_t, true)
MB_REDUCE(sum_f64, double, false)
MB_REDUCE(max_f64, double, true)
#undef MB_REDUCE

using ReduceFn = void (*)(void*, const void* const*, int, int64_t);

ReduceFn kernel(int dtype, int op) {
  const bool max = op == MB_MAX;
  if (op != MB_SUM && op != MB_MAX) return nullptr;
  switch (dtype) {
    case MB_F32:
      return max ? max_f32 : sum_f32;
    case MB_BF16:
      return max ? max_bf16 : sum_bf16;
    case MB_I32:
      return max ? max_i32 : sum_i32;
    case MB_F64:
      return max ? max_f64 : sum_f64;
  }
  return nullptr;
}

}  // namespace

bool can_reduce(int dtype, int op) { return kernel(dtype, op) != nullptr; }

void reduce(int dtype, int op, void* out, const void* const* src, int sources, int64_t n) {
  kernel(dtype, op)(out, src, sources, n);
}

}  // namespace mb::comm
