#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t tokens, vocab, shards, k;
  double spread;
};
// One shard of fewer logits than are wanted; rows longer than a GPU's block, with vectors and without.
const Shape kShapes[] = {
    {1, 6, 1, 6, 1}, {5, 8, 4, 5, 3}, {7, 2600, 2, 64, 3}, {3, 5003, 1, 1000, 9}, {2, 4096, 1, 1, 2}};

Values shard_of(const Values& all, const Shape& z, int64_t shard) {
  const int64_t cols = z.vocab / z.shards, vocab = cols * z.shards;
  Values part;
  for (int64_t t = 0; t < z.tokens; ++t) {
    const auto row = all.begin() + t * vocab + shard * cols;
    part.insert(part.end(), row, row + cols);
  }
  return part;
}

// The k tokens of a row that come first: by value, of equal ones the lowest.
std::vector<int64_t> best_of(const double* row, int64_t vocab, int64_t k) {
  std::vector<int64_t> order(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) order[size_t(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return row[a] > row[b]; });
  order.resize(size_t(k));
  return order;
}

double most_of(const double* row, int64_t vocab) { return *std::max_element(row, row + vocab); }

double sum_of(const double* row, int64_t vocab, double temperature) {
  const double most = most_of(row, vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp((row[i] - most) / temperature);
  return sum;
}

// In the order of calls that a model makes; many logits are equal, of which some are -0 and 0.
void top_k(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const double temperature : {1.0, 1.5}) {
      const int64_t cols = z.vocab / z.shards, vocab = cols * z.shards;
      Values all = rounded(c.random.uniforms(z.tokens * vocab, -z.spread, z.spread), act);
      for (double& x : all) {
        if (c.random.below(2) == 0) x = std::round(x);
      }
      const int64_t listed = z.tokens * z.k;
      const Tensor values(c, z.shards * listed, MB_F32), lists(c, z.shards * listed, MB_I32);
      for (int64_t shard = 0; shard < z.shards; ++shard) {
        const Tensor x(c, shard_of(all, z, shard), act);
        c.run_on(MB_OP_TOP_K, {x.buf(), values.part(shard * listed, listed), lists.part(shard * listed, listed)},
                 {double(z.tokens), double(cols), double(z.k), double(shard * cols)});
      }
      Values most, sums, expected_ids, expected;
      for (int64_t t = 0; t < z.tokens; ++t) {
        const double* row = &all[size_t(t * vocab)];
        most.push_back(most_of(row, vocab));
        sums.push_back(sum_of(row, vocab, temperature));
        for (const int64_t token : best_of(row, vocab, z.k)) {
          expected_ids.push_back(double(token));
          expected.push_back((row[token] - most.back()) / temperature - std::log(sums.back()));
        }
      }
      const Tensor gmax(c, most, MB_F32), total(c, sums, MB_F32);
      const Tensor logprobs(c, listed, MB_F32), ids(c, listed, MB_I32);
      c.run(MB_OP_TOP_K_MERGE, {&values, &lists, &gmax, &total, &logprobs, &ids},
            {double(z.shards), double(z.tokens), double(z.k), temperature});
      c.equal("ids", ids.read(), expected_ids);
      c.close("logprobs", logprobs.read(), expected, tolerance(MB_F32), 1);
    }
  }
}

// What is no number is above all, minus infinity below all, and a shard of fewer logits says which are none.
void top_k_of_few(Context& c, int act) {
  const Tensor x(c, Values{-INFINITY, 3, NAN, 3, -2}, act);
  const Tensor values(c, 7, MB_F32), ids(c, 7, MB_I32);
  c.run(MB_OP_TOP_K, {&x, &values, &ids}, {1, 5, 7, 10});
  c.equal("ids", ids.read(), {12, 11, 13, 14, 10, INT32_MAX, INT32_MAX});
  const Values found = values.read();
  c.is(std::isnan(found[0]), "not a number is first");
  c.equal("values", Values(found.begin() + 1, found.end()), {3, 3, -2, -INFINITY, -INFINITY, -INFINITY});
}

// A student's and a teacher's logits, and which rows count.
struct Pair {
  Values student, teacher, mask;
  int64_t vocab;

  Pair(Context& c, const Shape& z, int act) : vocab(z.vocab / z.shards * z.shards) {
    student = rounded(c.random.uniforms(z.tokens * vocab, -z.spread, z.spread), act);
    teacher = rounded(c.random.uniforms(z.tokens * vocab, -z.spread, z.spread), act);
    for (int64_t t = 0; t < z.tokens; ++t) mask.push_back(t % 3 == 1 ? 0 : 1);
  }
};

Values rows_of(const Values& all, int64_t tokens, int64_t vocab, double (*of)(const double*, int64_t)) {
  Values found;
  for (int64_t t = 0; t < tokens; ++t) found.push_back(of(&all[size_t(t * vocab)], vocab));
  return found;
}

// Loss and gradient over the vocabulary.
void soft_kl(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const double temperature : {1.0, 2.5}) {
      const Pair pair(c, z, act);
      const int64_t vocab = pair.vocab, cols = vocab / z.shards;
      const Values xmax = rows_of(pair.student, z.tokens, vocab, most_of);
      const Values ymax = rows_of(pair.teacher, z.tokens, vocab, most_of);
      Values gradient(pair.student.size()), losses(size_t(z.tokens), 0.0);
      double loss = 0, count = 0;
      for (int64_t t = 0; t < z.tokens; ++t) {
        const double* x = &pair.student[size_t(t * vocab)];
        const double* y = &pair.teacher[size_t(t * vocab)];
        const double xsum = sum_of(x, vocab, temperature), ysum = sum_of(y, vocab, temperature);
        double kl = 0;
        for (int64_t i = 0; i < vocab; ++i) {
          const double log_q = (x[i] - xmax[size_t(t)]) / temperature - std::log(xsum);
          const double log_p = (y[i] - ymax[size_t(t)]) / temperature - std::log(ysum);
          kl += std::exp(log_p) * (log_p - log_q);
          gradient[size_t(t * vocab + i)] = pair.mask[size_t(t)] * temperature * (std::exp(log_q) - std::exp(log_p));
        }
        losses[size_t(t)] = pair.mask[size_t(t)] * kl * temperature * temperature;
        loss += losses[size_t(t)];
        count += pair.mask[size_t(t)];
      }
      const Tensor gmax(c, xmax, MB_F32), tmax(c, ymax, MB_F32), mask(c, pair.mask, MB_F32);
      Values sums(size_t(3 * z.tokens), 0.0), alone(size_t(z.tokens), 0.0);
      std::vector<std::unique_ptr<Tensor>> students, teachers;
      for (int64_t shard = 0; shard < z.shards; ++shard) {
        students.push_back(std::make_unique<Tensor>(c, shard_of(pair.student, z, shard), act));
        teachers.push_back(std::make_unique<Tensor>(c, shard_of(pair.teacher, z, shard), act));
        const Tensor own(c, 3 * z.tokens, MB_F32), one(c, z.tokens, MB_F32);
        const Tensor &x = *students.back(), &y = *teachers.back();
        const std::vector<double> sizes = {double(z.tokens), double(cols), temperature};
        c.run(MB_OP_SOFT_SUMS, {&x, &gmax, &y, &tmax, &own}, sizes);
        const mb_buf none = {nullptr, 0, MB_F32, 0};
        c.run_on(MB_OP_SOFT_SUMS, {x.buf(), gmax.buf(), none, none, one.buf()}, sizes);
        const Values found = own.read();
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += found[i];
        c.equal("sums of the student alone", one.read(), Values(found.begin(), found.begin() + z.tokens));
      }
      const Tensor total(c, sums, MB_F32);
      for (int64_t shard = 0; shard < z.shards; ++shard) {
        const Tensor acc(c, Values{10, 20}, MB_F32), rows(c, z.tokens, MB_F32);
        const Tensor &x = *students[size_t(shard)], &y = *teachers[size_t(shard)];
        c.run(MB_OP_SOFT_KL, {&x, &y, &mask, &gmax, &tmax, &total, &acc, &rows},
              {double(z.tokens), double(cols), temperature});
        c.close("dlogits", x.read(), shard_of(gradient, z, shard), tolerance(act));
        c.close("rowloss", rows.read(), losses, tolerance(act), 1);
        c.close("acc", acc.read(), {10 + loss, 20 + count}, tolerance(act));
      }
    }
  }
}

// Loss and gradient over k tokens, of probabilities of those alone, and of the vocabulary.
void top_k_kl(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const double temperature : {1.0, 2.5}) {
      for (const bool whole : {false, true}) {
        const Pair pair(c, z, act);
        const int64_t vocab = pair.vocab, cols = vocab / z.shards;
        const Values xmax = rows_of(pair.student, z.tokens, vocab, most_of);
        Values ids, logprobs, sums, gradient(pair.student.size(), 0.0), losses(size_t(z.tokens), 0.0);
        double loss = 0, count = 0;
        for (int64_t t = 0; t < z.tokens; ++t) {
          const double* x = &pair.student[size_t(t * vocab)];
          const double* y = &pair.teacher[size_t(t * vocab)];
          const double mask = pair.mask[size_t(t)];
          sums.push_back(sum_of(x, vocab, temperature));
          const std::vector<int64_t> best = best_of(y, vocab, z.k);
          const double ymax = most_of(y, vocab), log_ysum = std::log(sum_of(y, vocab, temperature));
          double p_all = 0, q_all = 0, mass = 0, kl = 0;
          for (const int64_t i : best) {
            ids.push_back(double(i));
            logprobs.push_back(rounded({(y[i] - ymax) / temperature - log_ysum}, MB_F32)[0]);
            p_all += std::exp(logprobs.back());
            q_all += std::exp((x[i] - xmax[size_t(t)]) / temperature) / sums.back();
          }
          for (int64_t n = 0; n < z.k; ++n) {
            const int64_t i = best[size_t(n)];
            const double q = std::exp((x[i] - xmax[size_t(t)]) / temperature) / sums.back() / (whole ? 1 : q_all);
            const double p = std::exp(logprobs[size_t(t * z.k + n)]) / (whole ? 1 : p_all);
            mass += p;
            kl += p * std::log(p / q);
            if (!whole) gradient[size_t(t * vocab + i)] = mask * temperature * (q - p);
            if (whole) gradient[size_t(t * vocab + i)] = -mask * temperature * p;
          }
          for (int64_t i = 0; whole && i < vocab; ++i) {
            const double q = std::exp((x[i] - xmax[size_t(t)]) / temperature) / sums.back();
            gradient[size_t(t * vocab + i)] += mask * temperature * mass * q;
          }
          losses[size_t(t)] = mask * kl * temperature * temperature;
          loss += losses[size_t(t)];
          count += mask;
        }
        const Tensor token(c, ids, MB_I32), teacher(c, logprobs, MB_F32), mask(c, pair.mask, MB_F32);
        const Tensor gmax(c, xmax, MB_F32), total(c, sums, MB_F32);
        std::vector<std::unique_ptr<Tensor>> shards;
        Values student(ids.size(), 0.0);
        for (int64_t shard = 0; shard < z.shards; ++shard) {
          shards.push_back(std::make_unique<Tensor>(c, shard_of(pair.student, z, shard), act));
          const Tensor own(c, z.tokens * z.k, MB_F32);
          c.run(MB_OP_TOP_K_GATHER, {shards.back().get(), &token, &own},
                {double(z.tokens), double(cols), double(z.k), double(shard * cols)});
          const Values found = own.read();
          for (size_t i = 0; i < student.size(); ++i) student[i] += found[i];
        }
        const Tensor gathered(c, student, MB_F32);
        for (int64_t shard = 0; shard < z.shards; ++shard) {
          const Tensor acc(c, Values{10, 20}, MB_F32), rows(c, z.tokens, MB_F32);
          const mb_buf none = {nullptr, 0, MB_F32, 0};
          const Tensor& x = *shards[size_t(shard)];
          c.run_on(MB_OP_TOP_K_KL,
                   {x.buf(), token.buf(), teacher.buf(), gathered.buf(), mask.buf(), gmax.buf(),
                    whole ? total.buf() : none, acc.buf(), rows.buf()},
                   {double(z.tokens), double(cols), double(z.k), double(shard * cols), temperature});
          c.close("dlogits", x.read(), shard_of(gradient, z, shard), tolerance(act), 1e-3);
          c.close("rowloss", rows.read(), losses, tolerance(MB_F32), 1);
          c.close("acc", acc.read(), {10 + loss, 20 + count}, tolerance(MB_F32));
        }
      }
    }
  }
}

}  // namespace

const std::vector<Case> distill_cases = {
    {"top_k", top_k, true},
    {"top_k of few", top_k_of_few, true},
    {"soft_kl", soft_kl, true},
    {"top_k_kl", top_k_kl, true},
};

}  // namespace mb::test
