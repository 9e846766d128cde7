#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t tokens, vocab, shards;
  double spread;
};
const Shape kShapes[] = {{1, 2, 1, 1}, {5, 7, 1, 3}, {40, 130, 2, 3}, {9, 5003, 1, 30}, {130, 96, 3, 200}};

// Loss and gradient of a vocabulary in equal shards, in the order of calls that a model makes.
void cross_entropy(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const size_t tokens = size_t(z.tokens);
    const int64_t cols = z.vocab / z.shards;
    const Values all = rounded(c.random.uniforms(z.tokens * cols * z.shards, -z.spread, z.spread), act);
    Values targets(tokens), mask(tokens);
    for (size_t t = 0; t < tokens; ++t) {
      targets[t] = double(c.random.below(cols * z.shards));
      mask[t] = t % 5 == 3 ? 0 : t % 7 == 2 ? 0.5 : 1;
      if (mask[t] == 0 && t % 2 == 0) targets[t] = -100;  // what ignored tokens often hold
    }
    const Tensor target(c, targets, MB_I32);
    const Tensor masks(c, mask, MB_F32);

    std::vector<std::unique_ptr<Tensor>> logits, stats;
    for (int64_t shard = 0; shard < z.shards; ++shard) {
      Values part;
      for (size_t t = 0; t < tokens; ++t) {
        const auto row = all.begin() + int64_t(t) * cols * z.shards + shard * cols;
        part.insert(part.end(), row, row + cols);
      }
      logits.push_back(std::make_unique<Tensor>(c, part, act));
      stats.push_back(std::make_unique<Tensor>(c, 3 * z.tokens, MB_F32));
      c.run(MB_OP_CE_STATS, {logits.back().get(), &target, stats.back().get()},
            {double(z.tokens), double(cols), double(shard * cols)});
    }
    // What the group's collectives do.
    Values gmax(tokens, -INFINITY);
    for (const auto& s : stats) {
      const Values found = s->read();
      for (size_t t = 0; t < tokens; ++t) gmax[t] = std::max(gmax[t], found[t]);
    }
    const Tensor highest(c, gmax, MB_F32);
    Values sums(2 * tokens, 0.0);
    for (const auto& s : stats) {
      c.run(MB_OP_CE_RESCALE, {s.get(), &highest}, {double(z.tokens)});
      const Values found = s->read();
      for (size_t i = 0; i < 2 * tokens; ++i) sums[i] += found[tokens + i];
    }
    const Tensor total(c, sums, MB_F32);

    double loss = 0, count = 0;
    Values expected_rows(tokens), expected_max(tokens), expected_sums(2 * tokens, 0.0);
    Values gradient(all.size());
    for (size_t t = 0; t < tokens; ++t) {
      const double* x = &all[t * size_t(cols * z.shards)];
      const double m = *std::max_element(x, x + cols * z.shards);
      double sum = 0;
      for (int64_t i = 0; i < cols * z.shards; ++i) sum += std::exp(x[i] - m);
      const int64_t at = int64_t(targets[t]);
      expected_max[t] = m;
      expected_sums[t] = sum;
      expected_sums[tokens + t] = at >= 0 ? x[at] : 0;
      expected_rows[t] = mask[t] == 0 ? 0 : (std::log(sum) + m - x[at]) * mask[t];
      loss += expected_rows[t];
      count += mask[t];
      for (int64_t i = 0; i < cols * z.shards; ++i) {
        gradient[t * size_t(cols * z.shards) + size_t(i)] = (std::exp(x[i] - m) / sum - (i == at ? 1 : 0)) * mask[t];
      }
    }
    c.equal("max", gmax, expected_max);
    c.close("sums", sums, expected_sums, tolerance(MB_F32));

    for (int64_t shard = 0; shard < z.shards; ++shard) {
      const Tensor acc(c, Values{10, 20}, MB_F32);
      const Tensor rows(c, z.tokens, MB_F32);
      const Tensor& x = *logits[size_t(shard)];
      c.run(MB_OP_CE_GRAD, {&x, &target, &masks, &highest, &total, &acc, &rows},
            {double(z.tokens), double(cols), double(shard * cols)});
      Values part;
      for (size_t t = 0; t < tokens; ++t) {
        const auto row = gradient.begin() + int64_t(t) * cols * z.shards + shard * cols;
        part.insert(part.end(), row, row + cols);
      }
      c.close("dlogits", x.read(), part, tolerance(act));
      c.close("rowloss", rows.read(), expected_rows, tolerance(MB_F32));
      c.close("acc", acc.read(), {10 + loss, 20 + count}, tolerance(MB_F32));
    }
  }
}

// Log-probability, entropy and gradient of a vocabulary in equal shards, in the order of calls that a model makes.
void token_loss(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const size_t tokens = size_t(z.tokens);
    const int64_t vocab = z.vocab / z.shards * z.shards;
    const int64_t cols = vocab / z.shards;
    const Values all = rounded(c.random.uniforms(z.tokens * vocab, -z.spread, z.spread), act);
    Values targets(tokens), gmax(tokens), sums(2 * tokens), moment(tokens), logprob(tokens), entropy(tokens);
    Values dlogprob(tokens), dentropy(tokens), gradient(all.size());
    for (size_t t = 0; t < tokens; ++t) {
      const double* x = &all[t * size_t(vocab)];
      const double m = *std::max_element(x, x + vocab);
      targets[t] = double(c.random.below(vocab));
      gmax[t] = m;
      for (int64_t i = 0; i < vocab; ++i) {
        sums[t] += std::exp(x[i] - m);
        moment[t] += std::exp(x[i] - m) * (x[i] - m);
      }
      sums[tokens + t] = x[size_t(targets[t])];
      logprob[t] = sums[tokens + t] - m - std::log(sums[t]);
      entropy[t] = std::log(sums[t]) - moment[t] / sums[t];
      dlogprob[t] = t % 5 == 3 ? 0 : t % 3 == 1 ? 0.75 : -1;
      dentropy[t] = t % 5 == 3 || t % 4 == 2 ? 0 : 0.25;
      for (int64_t i = 0; i < vocab; ++i) {
        const double log_p = x[i] - m - std::log(sums[t]);
        gradient[t * size_t(vocab) + size_t(i)] = dlogprob[t] * ((double(i) == targets[t] ? 1 : 0) - std::exp(log_p)) -
                                                  dentropy[t] * std::exp(log_p) * (log_p + entropy[t]);
      }
    }
    const Tensor target(c, targets, MB_I32);
    const Tensor highest(c, gmax, MB_F32), total(c, sums, MB_F32);
    const Tensor dl(c, dlogprob, MB_F32), de(c, dentropy, MB_F32), known(c, entropy, MB_F32);

    Values found_moment(tokens, 0.0);
    for (int64_t shard = 0; shard < z.shards; ++shard) {
      Values part, expected;
      for (size_t t = 0; t < tokens; ++t) {
        const int64_t first = int64_t(t) * vocab + shard * cols;
        part.insert(part.end(), all.begin() + first, all.begin() + first + cols);
        expected.insert(expected.end(), gradient.begin() + first, gradient.begin() + first + cols);
      }
      const Tensor x(c, part, act);
      const Tensor own(c, z.tokens, MB_F32);
      c.run(MB_OP_TOKEN_MOMENT, {&x, &highest, &own}, {double(z.tokens), double(cols)});
      const Values found = own.read();
      for (size_t t = 0; t < tokens; ++t) found_moment[t] += found[t];
      c.run(MB_OP_TOKEN_GRAD, {&x, &target, &dl, &de, &known, &highest, &total},
            {double(z.tokens), double(cols), double(shard * cols)});
      const Values changed = x.read();
      c.close("dlogits", changed, expected, tolerance(act));
      for (size_t t = 3; t < tokens; t += 5) {
        for (int64_t i = 0; i < cols; ++i) c.is(changed[t * size_t(cols) + size_t(i)] == 0, "a row without a say");
      }
    }
    c.close("moment", found_moment, moment, tolerance(MB_F32));
    const Tensor moments(c, moment, MB_F32), l(c, z.tokens, MB_F32), e(c, z.tokens, MB_F32);
    c.run(MB_OP_TOKEN_VALUES, {&highest, &total, &moments, &l, &e}, {double(z.tokens)});
    c.close("logprob", l.read(), logprob, tolerance(MB_F32));
    c.close("entropy", e.read(), entropy, tolerance(MB_F32), 1e-2);
  }
}

// A logit of minus infinity has no probability, and no part in the entropy.
void token_loss_without_a_token(Context& c, int act) {
  const Tensor x(c, Values{0, -INFINITY, 0, 0}, act);
  const Tensor target(c, Values{0}, MB_I32), gmax(c, Values{0}, MB_F32), sums(c, Values{3, 0}, MB_F32);
  const Tensor moment(c, 1, MB_F32), dl(c, Values{-1}, MB_F32), de(c, Values{1}, MB_F32);
  const Tensor entropy(c, Values{std::log(3.0)}, MB_F32);
  c.run(MB_OP_TOKEN_MOMENT, {&x, &gmax, &moment}, {1, 4});
  c.equal("moment", moment.read(), {0});
  c.run(MB_OP_TOKEN_GRAD, {&x, &target, &dl, &de, &entropy, &gmax, &sums}, {1, 4, 0});
  c.close("dlogits", x.read(), {1.0 / 3 - 1, 0, 1.0 / 3, 1.0 / 3}, tolerance(act));
}

}  // namespace

const std::vector<Case> loss_cases = {
    {"cross entropy", cross_entropy, true},
    {"token loss", token_loss, true},
    {"token loss without a token", token_loss_without_a_token, true},
};

}  // namespace mb::test
