// HMAC-SHA-256 (RFC 2104, FIPS 180-4): what members prove to each other that they know the group's key with.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <array>

namespace mb::tcp {

using Digest = std::array<uint8_t, 32>;

Digest sha256(const uint8_t* data, size_t bytes);
Digest hmac(const uint8_t key[32], const uint8_t* data, size_t bytes);

// In a time that does not depend on where they differ.
bool same(const Digest& a, const Digest& b);

}  // namespace mb::tcp
