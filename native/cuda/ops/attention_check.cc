#include "cuda/ops/attention_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "cuda/device/error.h"
#include "cuda/kernels/kernels.h"

namespace mb::cuda {
namespace {

// One device allocation, handed out from the front. Filled with NaN, so that what a kernel fails to write shows.
class Scratch {
 public:
  ~Scratch() {
    if (base_) cudaFree(base_);
  }
  void take(int64_t bytes) {
    check("allocate", cudaMalloc(reinterpret_cast<void**>(&base_), bytes));
    size_ = bytes;
  }
  void fill(cudaStream_t stream) { check("fill", cudaMemsetAsync(base_, 0xff, size_, stream)); }
  mb_buf next(int64_t bytes, int dtype) {
    mb_buf buf = {base_ + used_, bytes, dtype, 0};
    used_ += (bytes + 255) / 256 * 256;
    if (used_ > size_) throw CudnnError("self-test: scratch memory is too small");
    return buf;
  }
  static void check(const char* what, cudaError_t error) {
    if (error != cudaSuccess) throw CudnnError(std::string("self-test: ") + what + ": " + cudaGetErrorString(error));
  }

 private:
  char* base_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

void must(int status) {
  if (status != MB_OK) throw CudnnError(std::string("self-test: ") + last_error());
}

std::vector<float> values(const mb_buf& buf) {
  std::vector<char> raw(buf.bytes);
  Scratch::check("read", cudaMemcpy(raw.data(), buf.ptr, raw.size(), cudaMemcpyDeviceToHost));
  std::vector<float> values(raw.size() / (buf.dtype == MB_BF16 ? 2 : 4));
  for (size_t i = 0; i < values.size(); i++) {
    uint32_t bits = 0;
    if (buf.dtype == MB_BF16) {
      uint16_t half;
      memcpy(&half, &raw[2 * i], 2);
      bits = static_cast<uint32_t>(half) << 16;
    } else {
      memcpy(&bits, &raw[4 * i], 4);
    }
    memcpy(&values[i], &bits, 4);
  }
  return values;
}

// ||a - b|| / ||b||; infinite where anything is not finite or b is zero.
double distance(const mb_buf& a, const mb_buf& b) {
  const std::vector<float> x = values(a), y = values(b);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); i++) {
    difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    norm += static_cast<double>(y[i]) * y[i];
  }
  const double distance = sqrt(difference / norm);
  return isfinite(distance) ? distance : INFINITY;
}

}  // namespace

std::string check_attention(cudnn::Handle handle, cudaStream_t stream, int64_t head_dim, bool deterministic) {
  // Two sequences, two query heads a key head, several tiles on either side of the diagonal.
  const AttentionShape shape = {2, 512, 4, 2, head_dim, deterministic};
  const int64_t all = shape.hq + 2 * shape.hkv, tokens = shape.b * shape.s;
  const double scale = 1 / sqrt(static_cast<double>(head_dim));
  CudnnAttention attention(handle, shape);
  const int64_t own_bytes =
      kernels::attention_workspace_bytes({shape.b, shape.s, shape.s, shape.hq, shape.hkv, shape.d});

  const int64_t qkv_bytes = tokens * all * head_dim * 2, o_bytes = tokens * shape.hq * head_dim * 2;
  const int64_t lse_bytes = tokens * shape.hq * 4;
  Scratch scratch;
  scratch.take(3 * qkv_bytes + 3 * o_bytes + 2 * lse_bytes + own_bytes + attention.workspace_bytes() + 16 * 256);
  scratch.fill(stream);
  const mb_buf qkv = scratch.next(qkv_bytes, MB_BF16), dout = scratch.next(o_bytes, MB_BF16);
  const mb_buf own_o = scratch.next(o_bytes, MB_BF16), o = scratch.next(o_bytes, MB_BF16);
  const mb_buf own_lse = scratch.next(lse_bytes, MB_F32), lse = scratch.next(lse_bytes, MB_F32);
  const mb_buf own_dqkv = scratch.next(qkv_bytes, MB_BF16), dqkv = scratch.next(qkv_bytes, MB_BF16);
  const mb_buf own_ws = scratch.next(own_bytes, MB_U8), ws = scratch.next(attention.workspace_bytes(), MB_U8);

  for (const mb_buf& random : {qkv, dout}) {
    const double cols = static_cast<double>(random.bytes / 2 / tokens);
    const double s[] = {static_cast<double>(tokens), cols, 0, 0, cols, 1, 7, 0, random.ptr == qkv.ptr ? 1. : 2., 0};
    must(kernels::op_init_normal(stream, &random, 1, s, 10));
  }
  // Queries, keys and values are columns of one matrix.
  const auto columns = [&](const mb_buf& all_heads, int64_t first, int64_t heads) {
    const int64_t bytes = ((tokens - 1) * all + heads) * head_dim * 2;
    return mb_buf{static_cast<char*>(all_heads.ptr) + first * head_dim * 2, bytes, MB_BF16, 0};
  };
  const auto q = [&](const mb_buf& buf) { return columns(buf, 0, shape.hq); };
  const auto k = [&](const mb_buf& buf) { return columns(buf, shape.hq, shape.hkv); };
  const auto v = [&](const mb_buf& buf) { return columns(buf, shape.hq + shape.hkv, shape.hkv); };
  const mb_buf none = {};
  const mb_buf fwd[] = {q(qkv), k(qkv), v(qkv), own_o, own_lse, none, own_ws};
  const mb_buf bwd[] = {q(qkv),      k(qkv),      v(qkv),      own_o, own_lse, dout,
                        q(own_dqkv), k(own_dqkv), v(own_dqkv), none,  own_ws};
  const double s = static_cast<double>(shape.s), d = static_cast<double>(head_dim);
  const double hq = static_cast<double>(shape.hq), hkv = static_cast<double>(shape.hkv);
  const double b = static_cast<double>(shape.b), ld = static_cast<double>(all) * d, ldo = hq * d;
  const double fwd_scalars[] = {b, s, s, hq, hkv, d, ld, ld, ld, ldo, s, 0, scale, 1};
  const double bwd_scalars[] = {b, s, s, hq, hkv, d, ld, ld, ld, ldo, ld, ld, ld, s, 0, scale, 1};
  must(kernels::op_attention_fwd(stream, fwd, 7, fwd_scalars, 14));
  must(kernels::op_attention_bwd(stream, bwd, 11, bwd_scalars, 17));

  const float f = static_cast<float>(scale);
  AttentionBuffers buffers = {qkv.ptr, o.ptr, lse.ptr, nullptr, nullptr, ws.ptr};
  attention.forward(handle, buffers, f);
  attention.backward(handle, {qkv.ptr, own_o.ptr, own_lse.ptr, dout.ptr, dqkv.ptr, ws.ptr}, f);
  Scratch::check("run", cudaStreamSynchronize(stream));

  // Each is within 3e-3 of the exact value (bf16 output); a wrong mask, scale or head mapping is off by tenths.
  struct Row {
    const char* name;
    double distance, limit;
  };
  for (const Row& row : {Row{"output", distance(o, own_o), 1e-2}, Row{"logsumexp", distance(lse, own_lse), 1e-4},
                         Row{"gradient", distance(dqkv, own_dqkv), 2e-2}}) {
    if (row.distance <= row.limit) continue;
    char text[160];
    snprintf(text, sizeof text, "its %s differs from our own kernel's by %.2e (relative norm; at most %.0e)", row.name,
             row.distance, row.limit);
    return text;
  }
  return "";
}

}  // namespace mb::cuda
