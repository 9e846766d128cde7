#include "cuda/ops/attention_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <utility>
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

std::string check_attention(cudnn::Handle handle, cudaStream_t stream, AttentionShape shape) {
  // Two sequences, two query heads a key head, several tiles on either side of the diagonal.
  const int64_t sq = shape.sq == shape.skv ? 512 : 256, skv = 512, hq = 4, hkv = 2, head = shape.d;
  const int64_t q_width = hq * head, kv_width = hkv * head, ldk = 2 * kv_width;
  shape = {2,       sq, skv, hq, hkv, head, q_width,      ldk,   ldk,
           q_width, 0,  0,   0,  skv, hq,   shape.causal, false, shape.deterministic};
  const CudnnAttention forward(handle, shape);
  shape.lddq = q_width;
  shape.lddk = shape.lddv = ldk;
  shape.backward = true;
  const CudnnAttention backward(handle, shape);
  const int64_t own_bytes = kernels::attention_workspace_bytes({shape.b, sq, skv, hq, hkv, head});
  const int64_t ws_bytes = std::max(forward.workspace_bytes(), backward.workspace_bytes());

  const int64_t q_bytes = shape.b * sq * q_width * 2, kv_bytes = shape.b * skv * ldk * 2;
  const int64_t lse_bytes = shape.b * sq * hq * 4;
  Scratch scratch;
  scratch.take(6 * q_bytes + 3 * kv_bytes + 2 * lse_bytes + own_bytes + ws_bytes + 16 * 256);
  scratch.fill(stream);
  const mb_buf q = scratch.next(q_bytes, MB_BF16), kv = scratch.next(kv_bytes, MB_BF16);
  const mb_buf dout = scratch.next(q_bytes, MB_BF16);
  const mb_buf own_o = scratch.next(q_bytes, MB_BF16), o = scratch.next(q_bytes, MB_BF16);
  const mb_buf own_lse = scratch.next(lse_bytes, MB_F32), lse = scratch.next(lse_bytes, MB_F32);
  const mb_buf own_dq = scratch.next(q_bytes, MB_BF16), dq = scratch.next(q_bytes, MB_BF16);
  const mb_buf own_dkv = scratch.next(kv_bytes, MB_BF16), dkv = scratch.next(kv_bytes, MB_BF16);
  const mb_buf own_ws = scratch.next(own_bytes, MB_U8), ws = scratch.next(ws_bytes, MB_U8);

  double stream_number = 0;
  for (const auto& [random, cols] : {std::pair{q, q_width}, std::pair{kv, ldk}, std::pair{dout, q_width}}) {
    const double rows = static_cast<double>(random.bytes / 2 / cols), width = static_cast<double>(cols);
    const double s[] = {rows, width, 0, 0, width, 1, 7, 0, ++stream_number, 0};
    must(kernels::op_init_normal(stream, &random, 1, s, 10));
  }
  // Keys and values are columns of one matrix.
  const auto half = [&](const mb_buf& both, int64_t first) {
    const int64_t bytes = both.bytes - kv_width * 2;
    return mb_buf{static_cast<char*>(both.ptr) + first * kv_width * 2, bytes, MB_BF16, 0};
  };
  const mb_buf none = {}, k = half(kv, 0), v = half(kv, 1);
  const mb_buf fwd[] = {q, k, v, own_o, own_lse, none, own_ws};
  const mb_buf bwd[] = {q, k, v, own_o, own_lse, dout, own_dq, half(own_dkv, 0), half(own_dkv, 1), none, own_ws};
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  const double scale = 1 / sqrt(number(head)), ld = number(ldk), ldq = number(q_width);
  const double b = number(shape.b), rows = number(sq), keys = number(skv),
               offset = number(shape.causal ? skv - sq : skv);
  const double fwd_scalars[] = {b,  rows, keys, number(hq), number(hkv), number(head), ldq,
                                ld, ld,   ldq,  keys,       offset,      scale,        1};
  const double bwd_scalars[] = {b,   rows, keys, number(hq), number(hkv), number(head), ldq,   ld, ld,
                                ldq, ldq,  ld,   ld,         keys,        offset,       scale, 1};
  must(kernels::op_attention_fwd(stream, fwd, 7, fwd_scalars, 14));
  must(kernels::op_attention_bwd(stream, bwd, 11, bwd_scalars, 17));

  const float f = static_cast<float>(scale);
  forward.run(handle, {q.ptr, k.ptr, v.ptr, o.ptr, lse.ptr, nullptr, nullptr, nullptr, nullptr, ws.ptr}, f);
  const mb_buf dk = half(dkv, 0), dv = half(dkv, 1);
  backward.run(handle, {q.ptr, k.ptr, v.ptr, own_o.ptr, own_lse.ptr, dout.ptr, dq.ptr, dk.ptr, dv.ptr, ws.ptr}, f);
  Scratch::check("run", cudaStreamSynchronize(stream));

  // Each is within 3e-3 of the exact value (bf16 output); a wrong mask, scale or head mapping is off by tenths.
  struct Row {
    const char* name;
    double distance, limit;
  };
  for (const Row& row : {Row{"output", distance(o, own_o), 1e-2}, Row{"logsumexp", distance(lse, own_lse), 1e-4},
                         Row{"gradient of queries", distance(dq, own_dq), 2e-2},
                         Row{"gradient of keys and values", distance(dkv, own_dkv), 2e-2}}) {
    if (row.distance <= row.limit) continue;
    char text[160];
    snprintf(text, sizeof text, "its %s differs from our own kernel's by %.2e (relative norm; at most %.0e)", row.name,
             row.distance, row.limit);
    return text;
  }
  return "";
}

}  // namespace mb::cuda
