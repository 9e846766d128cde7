#include "core/crc32.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mb {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320;  // reflected

// tables[i][b]: the remainder of byte b followed by i bytes of zero.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? kPolynomial : 0);
    tables[0][byte] = remainder;
  }
  for (size_t i = 1; i < tables.size(); ++i) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[i - 1][byte];
      tables[i][byte] = before >> 8 ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// `state` is the complement of the CRC. Eight bytes at a time.
uint32_t by_tables(uint32_t state, const uint8_t* data, size_t bytes) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint32_t next = 0;
    for (size_t i = 0; i < 8; ++i) {
      const uint32_t byte = i < 4 ? (state >> 8 * i & 0xff) ^ data[i] : data[i];
      next ^= kTables[7 - i][byte];
    }
    state = next;
  }
  for (size_t i = 0; i < bytes; ++i) state = state >> 8 ^ kTables[0][(state ^ data[i]) & 0xff];
  return state;
}

#if defined(__x86_64__)

// Carry-less products fold 64 bytes at a time into as many (V. Gopal and others, Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ, Intel 2009: the constants for this polynomial, reflected). Multiples of 16, from 64 on.
__attribute__((target("pclmul,sse4.1"))) uint32_t by_products(uint32_t state, const uint8_t* data, size_t bytes) {
  const auto load = [](const uint8_t* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); };
  const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
  const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
  const __m128i by_4 = _mm_set_epi64x(0, 0x0163cd6124);
  const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
  const __m128i low_halves = _mm_setr_epi32(-1, 0, -1, 0);

  __m128i folded[4];
  for (int i = 0; i < 4; ++i) folded[i] = load(data + 16 * i);
  folded[0] = _mm_xor_si128(folded[0], _mm_cvtsi32_si128(static_cast<int>(state)));
  for (data += 64, bytes -= 64; bytes >= 64; data += 64, bytes -= 64) {
    for (int i = 0; i < 4; ++i) {
      const __m128i low = _mm_clmulepi64_si128(folded[i], by_64, 0x00);
      const __m128i high = _mm_clmulepi64_si128(folded[i], by_64, 0x11);
      folded[i] = _mm_xor_si128(_mm_xor_si128(low, high), load(data + 16 * i));
    }
  }
  __m128i x = folded[0];
  for (int i = 1; i < 4; ++i) {
    const __m128i low = _mm_clmulepi64_si128(x, by_16, 0x00);
    x = _mm_xor_si128(_mm_xor_si128(low, _mm_clmulepi64_si128(x, by_16, 0x11)), folded[i]);
  }
  for (; bytes >= 16; data += 16, bytes -= 16) {
    const __m128i low = _mm_clmulepi64_si128(x, by_16, 0x00);
    x = _mm_xor_si128(_mm_xor_si128(low, _mm_clmulepi64_si128(x, by_16, 0x11)), load(data));
  }
  x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, by_16, 0x10));
  x = _mm_xor_si128(_mm_srli_si128(x, 4), _mm_clmulepi64_si128(_mm_and_si128(x, low_halves), by_4, 0x00));
  const __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(x, low_halves), barrett, 0x10);
  x = _mm_xor_si128(x, _mm_clmulepi64_si128(_mm_and_si128(quotient, low_halves), barrett, 0x00));
  return static_cast<uint32_t>(_mm_extract_epi32(x, 1));
}

const bool kHasProducts = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");

#endif

}  // namespace

uint32_t crc32(uint32_t crc, const void* data, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t state = ~crc;
#if defined(__x86_64__)
  if (kHasProducts && bytes >= 64) {
    const size_t whole = bytes / 16 * 16;
    state = by_products(state, at, whole);
    at += whole;
    bytes -= whole;
  }
#endif
  return ~by_tables(state, at, bytes);
}

}  // namespace mb
