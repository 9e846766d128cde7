#include "cuda/ops/attention_graph.h"

#include <limits>

namespace mb::cuda {
namespace {

using namespace cudnn;

// Ids of the tensors that an execution binds.
enum Id : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kDo,
  kDq,
  kDk,
  kDv,
  kScale,
  kMinusInf,
  kOne,
  kSums,
  kDqAccumulator,
  kKeys,
  kQueries
};

int64_t align(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Dimensions are [batch, head, row, column] whatever lies in memory; strides say where.
struct Layout : AttentionShape {
  explicit Layout(const AttentionShape& p) : AttentionShape(p) {}
  Dims scores() const { return {b, hq, sq, skv}; }
  Dims scores_strides() const { return {hq * sq * skv, sq * skv, skv, 1}; }
  Dims transposed() const { return {b, hq, skv, sq}; }
  Dims transposed_strides() const { return {hq * sq * skv, sq * skv, 1, skv}; }
  Dims rows() const { return {b, hq, sq, 1}; }
  Dims lse_strides() const { return {lse_heads * sq, sq, 1, 1}; }
  Dims packed_rows() const { return {hq * sq, sq, 1, 1}; }
  Dims q() const { return {b, hq, sq, d}; }
  Dims kv() const { return {b, hkv, skv, d}; }
  Dims kv_transposed() const { return {b, hkv, d, skv}; }
  // One row of a head to the next is a token away.
  Dims q_strides(int64_t ld) const { return {sq * ld, d, ld, 1}; }
  Dims kv_strides(int64_t ld) const { return {kv_rows * ld, d, ld, 1}; }
  Dims kv_transposed_strides(int64_t ld) const { return {kv_rows * ld, d, 1, ld}; }
  Dims packed(int64_t rows) const { return {hq * rows * d, rows * d, d, 1}; }
};

// The engines match the whole list of operations, their order, and the types of the tensors between them. In
// particular: the mask must be row >= column (column <= row computes the same a quarter slower), the probabilities must
// be bf16, and so must the gradients of k and v before they are summed over a group's query heads (float there gives
// NaN).
class Builder {
 public:
  explicit Builder(const AttentionShape& shape) : m_(shape) {}

  Plan build(Handle handle) {
    m_.backward ? backward() : forward();
    return g_.build(handle);
  }

 private:
  void forward() {
    const Tensor q = queries(kQ, m_.ldq), kt = keys_transposed(kK, m_.ldk);
    const Tensor v = keys(kV, m_.ldv), o = queries(kO, m_.ldo);
    const Tensor stats = g_.memory(kStats, m_.rows(), m_.lse_strides(), kFloat);
    const Tensor product = scores(), scaled = scores();
    g_.matmul(q, kt, product);
    g_.Pointwise(kMul, product, g_.host_scalar(kScale), scaled);
    const Tensor masked = mask(scaled);
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
  }

  void backward() {
    const Tensor q = queries(kQ, m_.ldq), kt = keys_transposed(kK, m_.ldk), vt = keys_transposed(kV, m_.ldv);
    const Tensor o = queries(kO, m_.ldo), dout = queries(kDo, m_.ldo), dq = queries(kDq, m_.lddq);
    const Tensor dk = keys(kDk, m_.lddk), dv = keys(kDv, m_.lddv);
    const Tensor stats = g_.memory(kStats, m_.rows(), m_.lse_strides(), kFloat), scale = g_.host_scalar(kScale);

    // sums = rowsum(dO * O)
    const Tensor weighted = g_.virtual_tensor(m_.q(), {m_.hq * m_.sq * m_.d, m_.sq * m_.d, m_.hq * m_.d, 1});
    const Tensor row_sums = rows_shape(), sums = g_.memory(kSums, m_.rows(), m_.packed_rows(), kFloat);
    g_.Pointwise(kMul, dout, o, weighted);
    g_.reduce(kReduceAdd, weighted, row_sums);
    g_.Pointwise(kMul, row_sums, g_.host_scalar(kOne), sums);

    // P = exp(mask(scale * Q K^T - stats))
    const Tensor product = scores(), scaled = scores(), shifted = scores(), p = scores();
    g_.matmul(q, kt, product);
    g_.Pointwise(kMul, product, scale, scaled);
    g_.Pointwise(kSub, scaled, stats, shifted);
    g_.Pointwise(kExp, mask(shifted), nullptr, p);

    // dV = P^T dO
    const Tensor pt = g_.virtual_tensor(m_.transposed(), m_.transposed_strides(), kBfloat16);
    g_.reshape(p, pt);
    sum_over_group(pt, dout, dv);

    // dS = scale * P * (dO V^T - sums)
    const Tensor dp = scores(), centred = scores(), weighted_p = scores(), ds = scores();
    g_.matmul(dout, vt, dp);
    g_.Pointwise(kSub, dp, sums, centred);
    g_.Pointwise(kMul, centred, p, weighted_p);
    g_.Pointwise(kMul, weighted_p, scale, ds);

    // dK = dS^T Q
    const Tensor dst = g_.virtual_tensor(m_.transposed(), m_.transposed_strides(), kBfloat16);
    g_.reshape(ds, dst);
    sum_over_group(dst, q, dk);

    // dQ = dS K: through a float accumulator, whose atomics vary from run to run, or directly.
    const Tensor k = g_.virtual_tensor(m_.kv(), m_.kv_strides(m_.ldk));
    g_.reshape(kt, k);
    if (m_.deterministic) {
      g_.matmul(ds, k, dq);
    } else {
      const Tensor accumulator = g_.memory(kDqAccumulator, m_.q(), m_.packed(m_.sq), kFloat);
      g_.matmul(ds, k, accumulator);
      g_.Pointwise(kIdentity, accumulator, nullptr, dq);
    }
  }

  Tensor queries(int64_t id, int64_t ld) { return g_.memory(id, m_.q(), m_.q_strides(ld), kBfloat16); }
  Tensor keys(int64_t id, int64_t ld) { return g_.memory(id, m_.kv(), m_.kv_strides(ld), kBfloat16); }
  Tensor keys_transposed(int64_t id, int64_t ld) {
    return g_.memory(id, m_.kv_transposed(), m_.kv_transposed_strides(ld), kBfloat16);
  }
  Tensor scores() { return g_.virtual_tensor(m_.scores(), m_.scores_strides()); }
  Tensor rows_shape() { return g_.virtual_tensor(m_.rows(), m_.packed_rows()); }
  Tensor indices() { return g_.virtual_tensor(m_.scores(), m_.scores_strides(), kInt32); }

  Tensor mask(Tensor x) {
    if (!m_.causal) return x;
    Tensor row = indices();
    const Tensor column = indices(), y = scores();
    const Tensor keep = g_.virtual_tensor(m_.scores(), m_.scores_strides(), kBoolean);
    g_.Pointwise(kGenIndex, x, nullptr, row, nullptr, kFloat, 2);
    g_.Pointwise(kGenIndex, x, nullptr, column, nullptr, kFloat, 3);
    if (m_.sq != m_.skv) {
      const Tensor longer = indices(), moved = indices();
      g_.Pointwise(kAdd, row, g_.host_scalar(kKeys, kInt32), longer, nullptr, kInt32);
      g_.Pointwise(kSub, longer, g_.host_scalar(kQueries, kInt32), moved, nullptr, kInt32);
      row = moved;
    }
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
    const Tensor full = g_.virtual_tensor({m_.b, m_.hq, m_.skv, m_.d}, m_.packed(m_.skv), kBfloat16);
    g_.matmul(a, b, full);
    g_.reduce(kReduceAdd, full, out);
  }

  Layout m_;
  Graph g_;
};

char* at(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

}  // namespace

CudnnAttention::CudnnAttention(Handle handle, const AttentionShape& shape)
    : shape_(shape), plan_(Builder(shape).build(handle)) {
  if (!shape.backward) return;
  const int64_t rows = shape.b * shape.hq * shape.sq;
  accumulator_bytes_ = shape.deterministic ? 0 : align(rows * shape.d * 4);
  sums_bytes_ = align(rows * 4);
}

void CudnnAttention::run(Handle handle, const AttentionBuffers& x, float scale) const {
  float minus_inf = -std::numeric_limits<float>::infinity(), one = 1;
  int32_t keys = static_cast<int32_t>(shape_.skv), queries = static_cast<int32_t>(shape_.sq);
  std::vector<Binding> bindings = {{kQ, x.q}, {kK, x.k}, {kV, x.v}, {kO, x.o}, {kStats, x.lse}, {kScale, &scale}};
  // An id that the graph does not have is refused.
  if (shape_.causal) bindings.push_back({kMinusInf, &minus_inf});
  if (shape_.causal && shape_.sq != shape_.skv) {
    bindings.push_back({kKeys, &keys});
    bindings.push_back({kQueries, &queries});
  }
  if (shape_.backward) {
    const std::vector<Binding> more = {{kDo, x.dout}, {kDq, x.dq},  {kDk, x.dk},
                                       {kDv, x.dv},   {kOne, &one}, {kSums, at(x.workspace, accumulator_bytes_)}};
    bindings.insert(bindings.end(), more.begin(), more.end());
    if (!shape_.deterministic) bindings.push_back({kDqAccumulator, x.workspace});
  }
  plan_.execute(handle, bindings, at(x.workspace, accumulator_bytes_ + sums_bytes_));
}

}  // namespace mb::cuda
