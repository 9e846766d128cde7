// CRC-32 of zlib, at the speed of memory.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace mb {

// Of `bytes` bytes, continued from `crc`, the CRC-32 of what came before (0 at first).
uint32_t crc32(uint32_t crc, const void* data, size_t bytes);

}  // namespace mb
