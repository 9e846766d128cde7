#include "attention_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "error.h"
#include "kernels/kernels.h"

namespace mbcuda {
namespace {

// One device allocation, handed out from the front. Filled with NaN, so that what a kernel fails to write shows.
class Scratch {
 public:
  ~Scratch() {
    if (base_) cudaFree(base_);
  }
  void Take(int64_t bytes) {
    Check("allocate", cudaMalloc(reinterpret_cast<void**>(&base_), bytes));
    size_ = bytes;
  }
  void Fill(cudaStream_t stream) { Check("fill", cudaMemsetAsync(base_, 0xff, size_, stream)); }
  mb_buf Next(int64_t bytes, int dtype) {
    mb_buf buf = {base_ + used_, bytes, dtype, 0};
    used_ += (bytes + 255) / 256 * 256;
    if (used_ > size_) throw CudnnError("self-test: scratch memory is too small");
    return buf;
  }
  static void Check(const char* what, cudaError_t error) {
    if (error != cudaSuccess) throw CudnnError(std::string("self-test: ") + what + ": " + cudaGetErrorString(error));
  }

 private:
  char* base_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

void Try(int status) {
  if (status != MB_OK) throw CudnnError(std::string("self-test: ") + LastError());
}

std::vector<float> Values(const mb_buf& buf) {
  std::vector<char> raw(buf.bytes);
  Scratch::Check("read", cudaMemcpy(raw.data(), buf.ptr, raw.size(), cudaMemcpyDeviceToHost));
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
double Distance(const mb_buf& a, const mb_buf& b) {
  const std::vector<float> x = Values(a), y = Values(b);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); i++) {
    difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    norm += static_cast<double>(y[i]) * y[i];
  }
  const double distance = sqrt(difference / norm);
  return isfinite(distance) ? distance : INFINITY;
}

}  // namespace

std::string CheckAttention(cudnn::Handle handle, cudaStream_t stream, int64_t head_dim, bool deterministic) {
  // Two sequences, two query heads a key head, several tiles on either side of the diagonal.
  const AttentionShape shape = {2, 512, 4, 2, head_dim, deterministic};
  const int64_t all = shape.hq + 2 * shape.hkv, tokens = shape.b * shape.s;
  const double scale = 1 / sqrt(static_cast<double>(head_dim));
  CudnnAttention attention(handle, shape);
  const int64_t own_bytes = mbk_attention_workspace(MB_BF16, shape.b, shape.s, shape.hq, shape.hkv, shape.d);
  if (own_bytes < 0) Try(MB_ERR_UNSUPPORTED);

  const int64_t qkv_bytes = tokens * all * head_dim * 2, o_bytes = tokens * shape.hq * head_dim * 2;
  const int64_t lse_bytes = tokens * shape.hq * 4;
  Scratch scratch;
  scratch.Take(3 * qkv_bytes + 3 * o_bytes + 2 * lse_bytes + own_bytes + attention.workspace_bytes() + 16 * 256);
  scratch.Fill(stream);
  const mb_buf qkv = scratch.Next(qkv_bytes, MB_BF16), dout = scratch.Next(o_bytes, MB_BF16);
  const mb_buf own_o = scratch.Next(o_bytes, MB_BF16), o = scratch.Next(o_bytes, MB_BF16);
  const mb_buf own_lse = scratch.Next(lse_bytes, MB_F32), lse = scratch.Next(lse_bytes, MB_F32);
  const mb_buf own_dqkv = scratch.Next(qkv_bytes, MB_BF16), dqkv = scratch.Next(qkv_bytes, MB_BF16);
  const mb_buf own_ws = scratch.Next(own_bytes, MB_U8), ws = scratch.Next(attention.workspace_bytes(), MB_U8);

  for (const mb_buf& random : {qkv, dout}) {
    const double cols = static_cast<double>(random.bytes / 2 / tokens);
    const double s[] = {static_cast<double>(tokens), cols, 0, 0, cols, 1, 7, 0, random.ptr == qkv.ptr ? 1. : 2., 0};
    Try(mbk_init_normal(stream, &random, 1, s, 10));
  }
  const double sizes[] = {static_cast<double>(shape.b),      static_cast<double>(shape.s),
                          static_cast<double>(shape.hq),     static_cast<double>(shape.hkv),
                          static_cast<double>(shape.d),      scale,
                          static_cast<double>(deterministic)};
  const mb_buf fwd[] = {qkv, own_o, own_lse, own_ws}, bwd[] = {qkv, own_o, own_lse, dout, own_dqkv, own_ws};
  Try(mbk_attention_fwd(stream, fwd, 4, sizes, 7));
  Try(mbk_attention_bwd(stream, bwd, 6, sizes, 7));

  const float f = static_cast<float>(scale);
  AttentionBuffers buffers = {qkv.ptr, o.ptr, lse.ptr, nullptr, nullptr, ws.ptr};
  attention.Forward(handle, buffers, f);
  attention.Backward(handle, {qkv.ptr, own_o.ptr, own_lse.ptr, dout.ptr, dqkv.ptr, ws.ptr}, f);
  Scratch::Check("run", cudaStreamSynchronize(stream));

  // Each is within 3e-3 of the exact value (bf16 output); a wrong mask, scale or head mapping is off by tenths.
  struct Row {
    const char* name;
    double distance, limit;
  };
  for (const Row& row : {Row{"output", Distance(o, own_o), 1e-2}, Row{"logsumexp", Distance(lse, own_lse), 1e-4},
                         Row{"gradient", Distance(dqkv, own_dqkv), 2e-2}}) {
    if (row.distance <= row.limit) continue;
    char text[160];
    snprintf(text, sizeof text, "its %s differs from our own kernel's by %.2e (relative norm; at most %.0e)", row.name,
             row.distance, row.limit);
    return text;
  }
  return "";
}

}  // namespace mbcuda
