// Choosing tokens: the best score of each row, and what top-k and top-p leave of it.
#include <cstring>

#include "core/args/decode.h"
#include "core/sampling.h"
#include "cpu/device.h"

namespace mb {
namespace {

// Best score among tokens [begin, end) of row t of a shard.
void sample_part(const SampleArgs& z, int64_t t, int64_t part) {
  const float* x = static_cast<const float*>(z.logits) + t * z.cols;
  const int64_t begin = shard_start(z.cols, part, MB_SAMPLE_PARTS),
                end = shard_start(z.cols, part + 1, MB_SAMPLE_PARTS);
  const float floor = z.floor == nullptr ? -INFINITY : z.floor[t];
  float best = -INFINITY;
  int64_t token = z.vstart + begin;
  PhiloxWords words{};
  int64_t group = -1;
  for (int64_t i = begin; i < end; ++i) {
    if (!(x[i] >= floor)) continue;
    const int64_t v = z.vstart + i;
    float score = x[i];
    if (z.temperature > 0) {
      const double scaled = static_cast<double>(x[i]) / z.temperature;
      if (scaled + kMostGumbel < static_cast<double>(best)) continue;  // no noise lifts it that far
      if (v / 4 != group) {
        group = v / 4;
        words = sample_words(static_cast<uint32_t>(group), z.positions[t], z.row_ids[t], z.seed_lo, z.seed_hi);
      }
      score = static_cast<float>(scaled + gumbel(words.w[v % 4]));
    }
    if (score > best) {
      best = score;
      token = v;
    }
  }
  float* out = z.out + 2 * (part * z.rows + t);
  out[0] = best;
  out[1] = static_cast<float>(token);
}

// Calls body(order, value) for every logit of row t.
template <class Body>
void each_logit(const FloorArgs& z, int64_t t, const Body& body) {
  for (int64_t s = 0; s < z.shards; ++s) {
    const int64_t count = shard_start(z.vocab, s + 1, z.shards) - shard_start(z.vocab, s, z.shards);
    const float* x = static_cast<const float*>(z.logits) + s * z.rows * z.room + t * count;
    for (int64_t i = 0; i < count; ++i) body(float_order(x[i]), x[i]);
  }
}

// The highest order such that what weighs at least `target` lies at or above it: byte by byte, from the highest.
template <class Weight>
uint32_t select(const FloorArgs& z, int64_t t, uint64_t target, const Weight& weight) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint64_t sums[256] = {};
    each_logit(z, t, [&](uint32_t order, float x) {
      if (shift == 24 || order >> (shift + 8) == prefix >> (shift + 8)) sums[order >> shift & 255] += weight(order, x);
    });
    uint32_t byte = 255;
    for (; byte > 0 && sums[byte] < target; --byte) target -= sums[byte];
    prefix |= byte << shift;
  }
  return prefix;
}

float floor_of(const FloorArgs& z, int64_t t) {
  uint32_t highest = 0, lowest = 0;
  each_logit(z, t, [&](uint32_t order, float) { highest = order > highest ? order : highest; });
  if (z.top_k > 0 && z.top_k < z.vocab) {
    lowest = select(z, t, static_cast<uint64_t>(z.top_k), [](uint32_t, float) { return uint64_t{1}; });
  }
  if (z.top_p < 1) {
    const float top = float_of_order(highest);
    const auto units = [&](uint32_t order, float x) {
      return order >= lowest ? probability_units(x, top, z.temperature) : uint64_t{0};
    };
    uint64_t total = 0;
    each_logit(z, t, [&](uint32_t order, float x) { total += units(order, x); });
    const auto target = static_cast<uint64_t>(ceil(z.top_p * static_cast<double>(total)));
    const uint32_t found = select(z, t, target, units);
    lowest = found > lowest ? found : lowest;
  }
  return lowest == 0 ? -INFINITY : float_of_order(lowest);
}

}  // namespace

int op_sample(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SAMPLE], t, nt, s, ns);
  args.only_f32(0);
  const SampleArgs z = read_sample(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows * MB_SAMPLE_PARTS, z.cols / MB_SAMPLE_PARTS + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) sample_part(z, i / MB_SAMPLE_PARTS, i % MB_SAMPLE_PARTS);
  });
  return MB_OK;
}

int op_sample_pick(mb_device*, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SAMPLE_PICK], t, nt, s, ns);
  const PickArgs z = read_sample_pick(args);
  if (!args.ok()) return args.status();
  for (int64_t row = 0; row < z.rows; ++row) {
    const float* best = z.scores + 2 * row;
    for (int64_t part = 1; part < z.parts; ++part) {
      const float* other = z.scores + 2 * (part * z.rows + row);
      if (other[0] > best[0] || (other[0] == best[0] && other[1] < best[1])) best = other;
    }
    z.tokens[row] = static_cast<int32_t>(best[1]);
  }
  return MB_OK;
}

int op_sample_floor(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SAMPLE_FLOOR], t, nt, s, ns);
  args.only_f32(0);
  const FloorArgs z = read_sample_floor(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, 16 * z.vocab, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) z.floor[row] = floor_of(z, row);
  });
  return MB_OK;
}

}  // namespace mb
