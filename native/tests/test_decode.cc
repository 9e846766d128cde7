#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/sampling.h"
#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t slots, context, hq, hkv, d;
  std::vector<int> positions;  // of one token a slot; -1: none
};
// Tiles of 64 keys end, and chunks of 256; groups of 1, 2, 4, 7, 20 heads.
const Shape kShapes[] = {{3, 16, 2, 2, 32, {0, 15, -1}},
                         {2, 400, 8, 2, 64, {127, 399}},
                         {4, 320, 4, 2, 128, {128, 255, 256, 300}},
                         {2, 528, 20, 1, 32, {63, 520}},
                         {2, 4160, 7, 1, 64, {4095, 4100}}};

// The last query of a slot in a forward over its whole sequence, in the same order of sums.
Values whole_sequence(Context& c, int act, const Shape& z, const Values& rows, int64_t n) {
  const int64_t q = z.hq * z.d, kv = z.hkv * z.d, width = q + 2 * kv;
  int64_t bytes = 0;
  char kernel[64] = "";
  c.table->attention_workspace(c.device, act, 1, n, n, z.hq, z.hkv, z.d, 0, 1, &bytes, kernel);
  const Tensor qkv(c, rows, act), o(c, n * q, act), lse(c, n * z.hq, MB_F32), ws(c, bytes / 4 + 1, MB_F32);
  const mb_buf none = {nullptr, 0, MB_F32, 0};
  c.run_on(MB_OP_ATTENTION_FWD,
           {qkv.part(0, n * width - 2 * kv), qkv.part(q, n * width - q - kv), qkv.part(q + kv, n * width - q - kv),
            o.buf(), lse.buf(), none, ws.buf()},
           {1, double(n), double(n), double(z.hq), double(z.hkv), double(z.d), double(width), double(width),
            double(width), double(q), double(n), 0, 1 / std::sqrt(double(z.d)), 1, 1});
  const Values all = o.read();
  return Values(all.end() - q, all.end());
}

// Attention of one token a slot over a cache that was filled row by row, its independence of the other slots, and,
// where it is promised, the bits of attention over the whole sequence.
void decode(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const int64_t width = (z.hq + 2 * z.hkv) * z.d, kv = z.hkv * z.d, q = z.hq * z.d;
    const Tensor k(c, z.slots * z.context * kv, act), v(c, z.slots * z.context * kv, act);
    std::vector<Values> rows;  // [slot][position][width]
    for (int64_t slot = 0; slot < z.slots; ++slot) {
      const int64_t n = z.positions[size_t(slot)] + 1;
      const Tensor qkv(c, c.random.uniforms(std::max<int64_t>(n, 1) * width), act);
      rows.push_back(qkv.values());
      const Values cells(static_cast<size_t>(n), static_cast<double>(slot));
      Values positions(static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) positions[size_t(i)] = double(i);
      if (n == 0) continue;
      const Tensor cell(c, cells, MB_I32), position(c, positions, MB_I32);
      c.run(MB_OP_KV_STORE, {&qkv, &cell, &position, &k, &v},
            {double(n), double(z.hq), double(z.hkv), double(z.d), double(z.slots), double(z.context)});
    }
    Values queries, cells, positions, expected;
    for (int64_t slot = 0; slot < z.slots; ++slot) {
      const int64_t at = z.positions[size_t(slot)];
      const Values& own = rows[size_t(slot)];
      const auto query = own.begin() + std::max<int64_t>(at, 0) * width;
      queries.insert(queries.end(), query, query + q);
      cells.push_back(at < 0 ? -1 : double(slot));
      positions.push_back(double(std::max<int64_t>(at, 0)));
      for (int64_t head = 0; head < z.hq; ++head) {
        const int64_t kv_head = head / (z.hq / z.hkv);
        Values scores(static_cast<size_t>(at + 1)), out(size_t(z.d), 0.0);
        double highest = -INFINITY, sum = 0;
        for (int64_t key = 0; key <= at; ++key) {
          double dot = 0;
          for (int64_t i = 0; i < z.d; ++i) {
            dot += query[head * z.d + i] * own[size_t(key * width + q + kv_head * z.d + i)];
          }
          scores[size_t(key)] = dot / std::sqrt(double(z.d));
          highest = std::max(highest, scores[size_t(key)]);
        }
        for (int64_t key = 0; key <= at; ++key) {
          const double p = std::exp(scores[size_t(key)] - highest);
          sum += p;
          for (int64_t i = 0; i < z.d; ++i) out[size_t(i)] += p * own[size_t(key * width + q + kv + kv_head * z.d + i)];
        }
        for (int64_t i = 0; i < z.d; ++i) expected.push_back(at < 0 ? 0 : out[size_t(i)] / sum);
      }
    }
    const auto run = [&](const Values& some_cells, int64_t tokens, int64_t first, bool prompts) {
      const Tensor query(c, Values(queries.begin() + first * q, queries.begin() + (first + tokens) * q), act);
      const Tensor cell(c, Values(some_cells.begin() + first, some_cells.begin() + first + tokens), MB_I32);
      const Tensor position(c, Values(positions.begin() + first, positions.begin() + first + tokens), MB_I32);
      const Tensor o(c, tokens * q, act),
          ws(c, tokens * z.hq * ((z.context + MB_CHUNK_KEYS - 1) / MB_CHUNK_KEYS) * (z.d + 2), MB_F32);
      c.run(MB_OP_ATTENTION_DECODE, {&query, &cell, &position, &k, &v, &o, &ws},
            {double(tokens), double(z.hq), double(z.hkv), double(z.d), double(q), double(z.slots), double(z.context),
             1 / std::sqrt(double(z.d)), double(prompts)});
      return o.read();
    };
    const Values all = run(cells, z.slots, 0, false);
    c.close("o", all, expected, tolerance(act, 64), 1e-2);
    const Values alone = run(cells, 1, z.slots - 1, false);
    c.equal("o of one slot alone", alone, Values(all.end() - q, all.end()));
    c.equal("o of prompts", run(cells, z.slots, 0, true), all);
    if (c.cuda() && act == MB_F32) continue;
    for (int64_t slot = 0; slot < z.slots; ++slot) {
      const int64_t n = z.positions[size_t(slot)] + 1;
      if (n == 0) continue;
      c.equal("o of a whole sequence", whole_sequence(c, act, z, rows[size_t(slot)], n),
              Values(all.begin() + slot * q, all.begin() + (slot + 1) * q));
    }
  }
}

double score_of(double logit, double temperature, int64_t token, int64_t position, int64_t row) {
  if (temperature == 0) return logit;
  const PhiloxWords words = sample_words(uint32_t(token / 4), int32_t(position), int32_t(row), 11, 3);
  return logit / temperature + gumbel(words.w[token % 4]);
}

// The best token of a vocabulary in two unequal shards, with and without what top-k and top-p leave out.
void sample(Context& c, int act) {
  constexpr int64_t kRows = 5, kVocab = 1031, kShards = 2, kRoom = 516;
  const Values all = rounded(c.random.uniforms(kRows * kVocab, -4, 4), act);
  Values rows, positions;
  for (int64_t t = 0; t < kRows; ++t) {
    rows.push_back(double(3 * t));
    positions.push_back(double(7 + t));
  }
  const Tensor row(c, rows, MB_I32), position(c, positions, MB_I32);
  const auto part = [&](int64_t s) {
    Values values;
    for (int64_t t = 0; t < kRows; ++t) {
      const auto from = all.begin() + t * kVocab;
      values.insert(values.end(), from + kVocab * s / kShards, from + kVocab * (s + 1) / kShards);
    }
    return values;
  };
  Values padded;
  for (int64_t s = 0; s < kShards; ++s) {
    const Values values = part(s);
    padded.insert(padded.end(), values.begin(), values.end());
    padded.resize(size_t((s + 1) * kRows * kRoom), 1e9);  // what lies there must not be looked at
  }
  const Tensor gathered(c, padded, act);
  struct Filter {
    double temperature;
    int64_t top_k;
    double top_p;
  };
  for (const Filter& f : {Filter{0, 0, 1}, {1, 0, 1}, {0.7, 10, 1}, {0.7, 0, 0.6}, {2, 300, 0.9}, {1, 2000, 1}}) {
    const bool filters = f.temperature > 0 && (f.top_k > 0 || f.top_p < 1);
    const Tensor floor(c, Values(size_t(kRows), -INFINITY), MB_F32);
    Values floors(size_t(kRows), -INFINITY);
    if (filters) {
      c.run(MB_OP_SAMPLE_FLOOR, {&gathered, &floor},
            {double(kShards), double(kRows), double(kVocab), double(kRoom), f.temperature, double(f.top_k), f.top_p});
      for (int64_t t = 0; t < kRows; ++t) {
        Values sorted(all.begin() + t * kVocab, all.begin() + (t + 1) * kVocab);
        std::sort(sorted.rbegin(), sorted.rend());
        const double top = sorted[0];
        size_t kept = f.top_k > 0 && f.top_k < kVocab ? size_t(f.top_k) : size_t(kVocab);
        while (kept < sorted.size() && sorted[kept] == sorted[kept - 1]) ++kept;
        if (f.top_p < 1) {
          double total = 0, mass = 0;
          for (size_t i = 0; i < kept; ++i) total += std::exp((sorted[i] - top) / f.temperature);
          size_t i = 0;
          for (; i < kept && mass < f.top_p * total; ++i) mass += std::exp((sorted[i] - top) / f.temperature);
          kept = i;
        }
        floors[size_t(t)] = kept == sorted.size() ? -INFINITY : sorted[kept - 1];
      }
      c.equal("floor", floor.read(), floors);
    }
    const Tensor scores(c, kShards * MB_SAMPLE_PARTS * kRows * 2, MB_F32);
    for (int64_t s = 0; s < kShards; ++s) {
      const int64_t first = kVocab * s / kShards, count = kVocab * (s + 1) / kShards - first;
      const Tensor logits(c, part(s), act);
      const int64_t each = MB_SAMPLE_PARTS * kRows * 2;
      const mb_buf none = {nullptr, 0, MB_F32, 0};
      c.run_on(MB_OP_SAMPLE,
               {logits.buf(), row.buf(), position.buf(), filters ? floor.buf() : none, scores.part(s * each, each)},
               {double(kRows), double(count), double(first), f.temperature, 11, 3});
    }
    const Tensor tokens(c, kRows, MB_I32);
    c.run(MB_OP_SAMPLE_PICK, {&scores, &tokens}, {double(kShards * MB_SAMPLE_PARTS), double(kRows)});
    Values expected;
    for (int64_t t = 0; t < kRows; ++t) {
      double best = -INFINITY;
      int64_t token = 0;
      for (int64_t i = 0; i < kVocab; ++i) {
        const double logit = all[size_t(t * kVocab + i)];
        if (logit < floors[size_t(t)]) continue;
        const double score = float(score_of(logit, f.temperature, i, 7 + t, 3 * t));
        if (score > best) {
          best = score;
          token = i;
        }
      }
      expected.push_back(double(token));
    }
    c.equal("tokens", tokens.read(), expected);
  }
}

}  // namespace

const std::vector<Case> decode_cases = {{"attention_decode", decode, true}, {"sample", sample, true}};

}  // namespace mb::test
