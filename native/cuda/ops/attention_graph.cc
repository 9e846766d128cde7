#include "cuda/ops/attention_graph.h"

#include <algorithm>
#include <limits>

namespace mb::cuda {
namespace {

using namespace cudnn;

// Ids of the tensors that an execution binds.
enum Id : int64_t { kQ = 1, kK, kV, kO, kStats, kDo, kDq, kDk, kDv, kScale, kMinusInf, kOne, kSums, kDqAccumulator };

int64_t align(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Dimensions are [batch, head, row, column] whatever lies in memory; strides say where.
struct Layout {
  int64_t b, s, hq, hkv, d, all;
  explicit Layout(const AttentionShape& p) : b(p.b), s(p.s), hq(p.hq), hkv(p.hkv), d(p.d), all(p.hq + 2 * p.hkv) {}
  Dims scores() const { return {b, hq, s, s}; }
  Dims scores_strides() const { return {hq * s * s, s * s, s, 1}; }
  Dims transposed_strides() const { return {hq * s * s, s * s, 1, s}; }
  Dims rows() const { return {b, hq, s, 1}; }
  Dims rows_strides() const { return {hq * s, s, 1, 1}; }
  Dims q() const { return {b, hq, s, d}; }
  Dims kv() const { return {b, hkv, s, d}; }
  Dims kv_transposed() const { return {b, hkv, d, s}; }
  // Interleaved heads: one row of a head to the next is all heads away.
  Dims in_qkv() const { return {s * all * d, d, all * d, 1}; }
  Dims in_qkv_transposed() const { return {s * all * d, d, 1, all * d}; }
  Dims in_o() const { return {s * hq * d, d, hq * d, 1}; }
  Dims packed_heads(int64_t heads) const { return {heads * s * d, s * d, d, 1}; }
};

// The engines match the whole list of operations, their order, and the types of the tensors between them. In
// particular: the mask must be row >= column (column <= row computes the same a quarter slower), the probabilities must
// be bf16, and so must the gradients of k and v before they are summed over a group's query heads (float there gives
// NaN).
class Builder {
 public:
  explicit Builder(const AttentionShape& shape) : m_(shape) {}

  Plan forward(Handle handle) {
    const Tensor q = bf16_tensor(kQ, m_.q(), m_.in_qkv()),
                 kt = bf16_tensor(kK, m_.kv_transposed(), m_.in_qkv_transposed());
    const Tensor v = bf16_tensor(kV, m_.kv(), m_.in_qkv()), o = bf16_tensor(kO, m_.q(), m_.in_o());
    const Tensor stats = g_.memory(kStats, m_.rows(), m_.rows_strides(), kFloat);
    const Tensor product = scores(), scaled = scores();
    g_.matmul(q, kt, product);
    g_.Pointwise(kMul, product, g_.host_scalar(kScale), scaled);
    const Tensor masked = causal(scaled);
    const Tensor max = rows_shape(), shifted = scores(), exponent = scores(), sum = rows_shape(), log = rows_shape();
    const Tensor probabilities = g_.virtual_tensor(m_.scores(), m_.scores_strides(), kBfloat16);
    g_.reduce(kReduceMax, masked, max);
    g_.Pointwise(kSub, masked, max, shifted);
    g_.Pointwise(kExp, shifted, nullptr, exponent);
    g_.reduce(kReduceAdd, exponent, sum);
    g_.Pointwise(kLog, sum, nullptr, log);
    g_.Pointwise(kAdd, max, log, stats);
    g_.Pointwise(kDiv, exponent, sum, probabilities);
    g_.matmul(probabilities, v, o);
    return g_.build(handle);
  }

  Plan backward(Handle handle, bool deterministic) {
    const Tensor q = bf16_tensor(kQ, m_.q(), m_.in_qkv()),
                 kt = bf16_tensor(kK, m_.kv_transposed(), m_.in_qkv_transposed());
    const Tensor vt = bf16_tensor(kV, m_.kv_transposed(), m_.in_qkv_transposed());
    const Tensor o = bf16_tensor(kO, m_.q(), m_.in_o()), dout = bf16_tensor(kDo, m_.q(), m_.in_o());
    const Tensor dq = bf16_tensor(kDq, m_.q(), m_.in_qkv());
    const Tensor dk = bf16_tensor(kDk, m_.kv(), m_.in_qkv()), dv = bf16_tensor(kDv, m_.kv(), m_.in_qkv());
    const Tensor stats = g_.memory(kStats, m_.rows(), m_.rows_strides(), kFloat), scale = g_.host_scalar(kScale);

    // sums = rowsum(dO * O)
    const Tensor weighted = g_.virtual_tensor(m_.q(), {m_.hq * m_.s * m_.d, m_.s * m_.d, m_.hq * m_.d, 1});
    const Tensor row_sums = rows_shape(), sums = g_.memory(kSums, m_.rows(), m_.rows_strides(), kFloat);
    g_.Pointwise(kMul, dout, o, weighted);
    g_.reduce(kReduceAdd, weighted, row_sums);
    g_.Pointwise(kMul, row_sums, g_.host_scalar(kOne), sums);

    // P = exp(mask(scale * Q K^T - stats))
    const Tensor product = scores(), scaled = scores(), shifted = scores(), p = scores();
    g_.matmul(q, kt, product);
    g_.Pointwise(kMul, product, scale, scaled);
    g_.Pointwise(kSub, scaled, stats, shifted);
    g_.Pointwise(kExp, causal(shifted), nullptr, p);

    // dV = P^T dO
    const Tensor pt = g_.virtual_tensor(m_.scores(), m_.transposed_strides(), kBfloat16);
    g_.reshape(p, pt);
    sum_over_group(pt, dout, dv);

    // dS = scale * P * (dO V^T - sums)
    const Tensor dp = scores(), centred = scores(), weighted_p = scores(), ds = scores();
    g_.matmul(dout, vt, dp);
    g_.Pointwise(kSub, dp, sums, centred);
    g_.Pointwise(kMul, centred, p, weighted_p);
    g_.Pointwise(kMul, weighted_p, scale, ds);

    // dK = dS^T Q
    const Tensor dst = g_.virtual_tensor(m_.scores(), m_.transposed_strides(), kBfloat16);
    g_.reshape(ds, dst);
    sum_over_group(dst, q, dk);

    // dQ = dS K: through a float accumulator, whose atomics vary from run to run, or directly.
    const Tensor k = g_.virtual_tensor(m_.kv(), m_.in_qkv());
    g_.reshape(kt, k);
    if (deterministic) {
      g_.matmul(ds, k, dq);
    } else {
      const Tensor accumulator = g_.memory(kDqAccumulator, m_.q(), m_.packed_heads(m_.hq), kFloat);
      g_.matmul(ds, k, accumulator);
      g_.Pointwise(kIdentity, accumulator, nullptr, dq);
    }
    return g_.build(handle);
  }

 private:
  Tensor bf16_tensor(int64_t id, const Dims& dims, const Dims& strides) {
    return g_.memory(id, dims, strides, kBfloat16);
  }
  Tensor scores() { return g_.virtual_tensor(m_.scores(), m_.scores_strides()); }
  Tensor rows_shape() { return g_.virtual_tensor(m_.rows(), m_.rows_strides()); }

  Tensor causal(Tensor x) {
    const Tensor row = g_.virtual_tensor(m_.scores(), m_.scores_strides(), kInt32);
    const Tensor column = g_.virtual_tensor(m_.scores(), m_.scores_strides(), kInt32);
    const Tensor keep = g_.virtual_tensor(m_.scores(), m_.scores_strides(), kBoolean), y = scores();
    g_.Pointwise(kGenIndex, x, nullptr, row, nullptr, kFloat, 2);
    g_.Pointwise(kGenIndex, x, nullptr, column, nullptr, kFloat, 3);
    g_.Pointwise(kCmpGe, row, column, keep, nullptr, kBoolean);
    g_.Pointwise(kBinarySelect, x, g_.host_scalar(kMinusInf), y, keep);
    return y;
  }

  // out = a b, a key head's gradient being the sum over its query heads.
  void sum_over_group(Tensor a, Tensor b, Tensor out) {
    if (m_.hq == m_.hkv) {
      g_.matmul(a, b, out);
      return;
    }
    const Tensor full = g_.virtual_tensor(m_.q(), m_.packed_heads(m_.hq), kBfloat16);
    g_.matmul(a, b, full);
    g_.reduce(kReduceAdd, full, out);
  }

  Layout m_;
  Graph g_;
};

char* at(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

}  // namespace

CudnnAttention::CudnnAttention(Handle handle, const AttentionShape& shape)
    : shape_(shape),
      forward_(Builder(shape).forward(handle)),
      backward_(Builder(shape).backward(handle, shape.deterministic)),
      accumulator_bytes_(shape.deterministic ? 0 : align(shape.b * shape.hq * shape.s * shape.d * 4)),
      sums_bytes_(align(shape.b * shape.hq * shape.s * 4)),
      workspace_bytes_(
          std::max(forward_.workspace_bytes(), accumulator_bytes_ + sums_bytes_ + backward_.workspace_bytes())) {}

void CudnnAttention::forward(Handle handle, const AttentionBuffers& x, float scale) const {
  float minus_inf = -std::numeric_limits<float>::infinity();
  const int64_t head = shape_.d * 2;
  forward_.execute(handle,
                   {{kQ, x.qkv},
                    {kK, at(x.qkv, shape_.hq * head)},
                    {kV, at(x.qkv, (shape_.hq + shape_.hkv) * head)},
                    {kO, x.o},
                    {kStats, x.lse},
                    {kScale, &scale},
                    {kMinusInf, &minus_inf}},
                   x.workspace);
}

void CudnnAttention::backward(Handle handle, const AttentionBuffers& x, float scale) const {
  float minus_inf = -std::numeric_limits<float>::infinity(), one = 1;
  const int64_t head = shape_.d * 2, k = shape_.hq * head, v = (shape_.hq + shape_.hkv) * head;
  std::vector<Binding> bindings = {{kQ, x.qkv},
                                   {kK, at(x.qkv, k)},
                                   {kV, at(x.qkv, v)},
                                   {kO, x.o},
                                   {kStats, x.lse},
                                   {kDo, x.dout},
                                   {kDq, x.dqkv},
                                   {kDk, at(x.dqkv, k)},
                                   {kDv, at(x.dqkv, v)},
                                   {kOne, &one},
                                   {kSums, at(x.workspace, accumulator_bytes_)},
                                   {kScale, &scale},
                                   {kMinusInf, &minus_inf}};
  // An id that the graph does not have is refused, so this one is only there when it is used.
  if (!shape_.deterministic) bindings.push_back({kDqAccumulator, x.workspace});
  backward_.execute(handle, bindings, at(x.workspace, accumulator_bytes_ + sums_bytes_));
}

}  // namespace mb::cuda
