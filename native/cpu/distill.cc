// The largest logits of each row, and the divergence of a student's distribution from a teacher's.
#include "core/args/distill.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "core/top_k.h"
#include "cpu/device.h"

namespace mb {
namespace {

// The k largest of row t, by a heap whose front is the smallest that is kept.
void top_k_of(const TopKArgs& z, int64_t t, uint64_t* heap) {
  const float* x = static_cast<const float*>(z.logits) + t * z.cols;
  const auto token = [&](int64_t i) { return static_cast<int32_t>(z.vstart + i); };
  const int64_t kept = z.k < z.cols ? z.k : z.cols;
  const auto before = std::greater<uint64_t>();
  for (int64_t i = 0; i < kept; ++i) heap[i] = top_key(x[i], token(i));
  std::make_heap(heap, heap + kept, before);
  for (int64_t i = kept; i < z.cols; ++i) {
    if (top_order(x[i]) <= heap[0] >> 32) continue;  // of equal ones the lowest tokens are there
    std::pop_heap(heap, heap + kept, before);
    heap[kept - 1] = top_key(x[i], token(i));
    std::push_heap(heap, heap + kept, before);
  }
  std::sort_heap(heap, heap + kept, before);
  float* values = z.values + t * z.k;
  int32_t* ids = z.ids + t * z.k;
  for (int64_t i = 0; i < z.k; ++i) {
    ids[i] = i < kept ? token_of_key(heap[i]) : INT32_MAX;
    values[i] = i < kept ? x[ids[i] - z.vstart] : -INFINITY;
  }
}

Soft soft_of(const KlArgs& z) {
  Soft p{};
  p.logits = static_cast<float*>(z.logits);
  p.teacher = static_cast<const float*>(z.teacher);
  p.gmax = z.gmax;
  p.tmax = z.tmax;
  p.sums = z.sums_out;
  p.inverse = static_cast<float>(1 / z.temperature);
  p.rows = z.rows;
  p.cols = z.cols;
  return p;
}

// log of the sum of exp(scale * x), over k entries.
double log_sum(const float* x, int64_t k, double scale) {
  const double most = scale * static_cast<double>(*std::max_element(x, x + k));
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += std::exp(scale * static_cast<double>(x[i]) - most);
  return most + std::log(sum);
}

void top_k_kl_of(mb_device* device, const KlArgs& z, int64_t t) {
  float* x = static_cast<float*>(z.logits) + t * z.cols;
  const auto mask = static_cast<double>(z.mask[t]);
  z.rowloss[t] = 0;
  if (mask == 0) return std::fill(x, x + z.cols, 0.0f);
  const float *teacher = z.teacher_logprobs + t * z.k, *student = z.student + t * z.k;
  const double inverse = 1 / z.temperature;
  const bool whole = z.sums != nullptr;
  const double teacher_shift = whole ? 0 : log_sum(teacher, z.k, 1);
  const double student_shift = whole
                                   ? std::log(static_cast<double>(z.sums[t])) + static_cast<double>(z.gmax[t]) * inverse
                                   : log_sum(student, z.k, inverse);
  double loss = 0, mass = 0;
  for (int64_t i = 0; i < z.k; ++i) {
    const double log_p = static_cast<double>(teacher[i]) - teacher_shift, p = std::exp(log_p);
    mass += p;
    if (p > 0) loss += p * (log_p - (static_cast<double>(student[i]) * inverse - student_shift));
  }
  z.rowloss[t] = static_cast<float>(loss * mask * z.temperature * z.temperature);
  const double factor = mask * z.temperature;
  if (whole) {
    const auto share = static_cast<float>(factor * mass / static_cast<double>(z.sums[t]));
    device->kernels.soft_grad({x, nullptr, z.cols, z.gmax[t], 0, static_cast<float>(inverse), share, 0});
  } else {
    std::fill(x, x + z.cols, 0.0f);
    mass = 1;
  }
  for (int64_t i = 0; i < z.k; ++i) {
    const int64_t at = z.ids[t * z.k + i] - z.vstart;
    if (at < 0 || at >= z.cols) continue;
    const double p = std::exp(static_cast<double>(teacher[i]) - teacher_shift);
    const double q = std::exp(static_cast<double>(student[i]) * inverse - student_shift);
    x[at] = static_cast<float>(factor * (mass * q - p));
  }
}

void soft_kl_of(mb_device* device, const KlArgs& z, int64_t t) {
  float* x = static_cast<float*>(z.logits) + t * z.cols;
  const float mask = z.mask[t];
  z.rowloss[t] = 0;
  if (mask == 0.0f) return std::fill(x, x + z.cols, 0.0f);
  const auto student = static_cast<double>(z.sums[t]), teacher = static_cast<double>(z.sums[z.rows + t]);
  const double kl = static_cast<double>(z.sums[2 * z.rows + t]) / teacher + std::log(student / teacher);
  z.rowloss[t] = static_cast<float>(kl * static_cast<double>(mask) * z.temperature * z.temperature);
  const double factor = static_cast<double>(mask) * z.temperature;
  const float* y = static_cast<const float*>(z.teacher) + t * z.cols;
  device->kernels.soft_grad({x, y, z.cols, z.gmax[t], z.tmax[t], static_cast<float>(1 / z.temperature),
                             static_cast<float>(factor / student), static_cast<float>(factor / teacher)});
}

}  // namespace

int op_top_k(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOP_K], t, nt, s, ns);
  args.only_f32(0);
  const TopKArgs z = read_top_k(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    std::vector<uint64_t> heap(static_cast<size_t>(z.k));
    for (int64_t row = begin; row < end; ++row) top_k_of(z, row, heap.data());
  });
  return MB_OK;
}

int op_top_k_merge(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOP_K_MERGE], t, nt, s, ns);
  const TopKArgs z = read_top_k_merge(args);
  if (!args.ok()) return args.status();
  const auto inverse = static_cast<float>(1 / z.temperature);
  device->rows(z.rows, z.shards * z.k, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float base = std::log(z.sums[row]) + z.gmax[row] * inverse;
      for (int64_t i = 0; i < z.shards * z.k; ++i) {
        const int64_t shard = i / z.k;
        const int64_t place = merged_place(z.values_in, z.lists, z.shards, z.rows, z.k, row, shard, i % z.k);
        if (place >= z.k) continue;
        const int64_t from = (shard * z.rows + row) * z.k + i % z.k, to = row * z.k + place;
        z.values[to] = -(base - z.values_in[from] * inverse);
        z.ids[to] = z.lists[from];
      }
    }
  });
  return MB_OK;
}

int op_soft_sums(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SOFT_SUMS], t, nt, s, ns);
  args.only_f32(0);
  const Soft p = soft_of(read_soft_sums(args));
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.soft_sums(p, begin, end); });
  return MB_OK;
}

int op_top_k_gather(mb_device*, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOP_K_GATHER], t, nt, s, ns);
  args.only_f32(0);
  const TopKArgs z = read_top_k_gather(args);
  if (!args.ok()) return args.status();
  const float* x = static_cast<const float*>(z.logits);
  for (int64_t i = 0; i < z.rows * z.k; ++i) {
    const int64_t at = z.lists[i] - z.vstart;
    z.values[i] = at >= 0 && at < z.cols ? x[i / z.k * z.cols + at] : 0.0f;
  }
  return MB_OK;
}

int op_top_k_kl(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOP_K_KL], t, nt, s, ns);
  args.only_f32(0);
  const KlArgs z = read_top_k_kl(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, z.cols + 8 * z.k, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) top_k_kl_of(device, z, row);
  });
  add_losses(z.rowloss, z.mask, z.rows, z.acc);
  return MB_OK;
}

int op_soft_kl(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SOFT_KL], t, nt, s, ns);
  args.only_f32(0);
  const KlArgs z = read_soft_kl(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) soft_kl_of(device, z, row);
  });
  add_losses(z.rowloss, z.mask, z.rows, z.acc);
  return MB_OK;
}

}  // namespace mb
