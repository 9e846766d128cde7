// What every communicator asks of an all-to-all's arguments, and the transfers that it is made of.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

#include "core/abi.h"
#include "core/dtype.h"

namespace mb {

struct AllToAll {
  const mb_buf &in, &out;
  int size;
  const int64_t *send_counts, *send_offsets, *recv_counts, *recv_offsets;

  // What is wrong with them; empty where nothing is.
  std::string problem() const {
    if (in.dtype != out.dtype || dtype_size(in.dtype) == 0) {
      return "dtypes " + std::string(dtype_name(in.dtype)) + " and " + dtype_name(out.dtype);
    }
    const auto* from = static_cast<const char*>(in.ptr);
    const auto* to = static_cast<const char*>(out.ptr);
    if (from < to + out.bytes && to < from + in.bytes) return "in and out overlap";
    for (int r = 0; r < size; ++r) {
      for (const bool send : {true, false}) {
        const mb_buf& buf = send ? in : out;
        const int64_t held = buf.bytes / dtype_size(buf.dtype);
        const int64_t count = send ? send_counts[r] : recv_counts[r], at = send ? send_offsets[r] : recv_offsets[r];
        if (count < 0 || at < 0 || at > held || count > held - at) {
          return std::string(send ? "sends " : "receives ") + std::to_string(count) + " elements at " +
                 std::to_string(at) + (send ? " to member " : " from member ") + std::to_string(r) + ", of " +
                 std::to_string(held);
        }
      }
    }
    return {};
  }

  // Sends and receives of one exchange, a member's own included.
  std::vector<mb_p2p> transfers() const {
    const int64_t element = dtype_size(in.dtype);
    std::vector<mb_p2p> list;
    for (int r = 0; r < size; ++r) {
      const auto part = [&](const mb_buf& buf, int64_t at, int64_t count) {
        return mb_buf{static_cast<char*>(buf.ptr) + at * element, count * element, buf.dtype, 0};
      };
      list.push_back({part(in, send_offsets[r], send_counts[r]), r, 1});
      list.push_back({part(out, recv_offsets[r], recv_counts[r]), r, 0});
    }
    return list;
  }
};

}  // namespace mb
