#include <cmath>

#include "core/dtype.h"
#include "core/stochastic.h"
#include "tests/harness.h"

namespace mb::test {
namespace {

constexpr double kPi = 3.14159265358979323846;

struct Schedule {
  int style;  // 0 constant, 1 linear, 2 cosine, 3 WSD
  double warmup, decay, wsd;
};

// Tabulated from the definition, not from the implementation: fraction of the way from lr to min_lr at update n.
double expected_lr(const Schedule& s, double lr, double min_lr, int n) {
  if (s.warmup > 0 && n <= s.warmup) return lr * n / s.warmup;
  double fraction = 0;
  const double progress = std::fmin(1.0, (n - s.warmup) / (s.decay - s.warmup));
  if (s.style == 1) fraction = progress;
  if (s.style == 2) fraction = (1 - std::cos(kPi * progress)) / 2;
  if (s.style == 3) fraction = std::fmin(1.0, std::fmax(0.0, (n - (s.decay - s.wsd)) / s.wsd));
  return lr + (min_lr - lr) * fraction;
}

void optimizer_prepare(Context& c, int) {
  const double lr = 3e-4, min_lr = 2e-5, beta1 = 0.9, beta2 = 0.95;
  for (const Schedule& s :
       {Schedule{0, 4, 10, 0}, Schedule{1, 0, 12, 0}, Schedule{2, 3, 12, 0}, Schedule{3, 2, 14, 5}}) {
    for (const double clip : {0.0, 1.0}) {
      Tensor normsq(c, 1, MB_F32);
      Tensor acc(c, 2, MB_F32);
      const Tensor state(c, Values(MB_STATE_COUNT, 0.0), MB_F64);
      int step = 0;
      int skipped = 0;
      double last_lr = 0;
      for (int call = 1; call <= 20; ++call) {
        const bool bad = call == 3 || call == 4 || call == 17;
        const double tokens = 50 + call;
        normsq.write({bad ? (call == 4 ? std::nan("") : double(INFINITY)) : call * 500.0});
        acc.write({tokens * 2.5, tokens});
        c.run(MB_OP_OPTIMIZER_PREPARE, {&normsq, &acc, &state},
              {clip, beta1, beta2, lr, min_lr, s.warmup, s.decay, double(s.style), s.wsd});
        const Values found = state.read();
        skipped = bad ? skipped + 1 : 0;
        if (!bad) {
          ++step;
          last_lr = expected_lr(s, lr, min_lr, step);
          const double norm = std::sqrt(normsq.values()[0]) / tokens;
          c.close("norm", {found[MB_STATE_GRAD_NORM]}, {norm}, 1e-6);
          const double factor = clip == 0 ? 1 : std::fmin(1.0, clip / (norm + 1e-6));
          c.close("scale", {found[MB_STATE_SCALE]}, {factor / tokens}, 1e-6);
        }
        c.close("lr", {found[MB_STATE_LR]}, {last_lr}, 1e-9);
        c.close("loss", {found[MB_STATE_LOSS]}, {2.5}, 1e-6);
        c.equal("tokens, step, skip, skipped in a row",
                {found[MB_STATE_TOKENS], found[MB_STATE_STEP], found[MB_STATE_SKIP], found[MB_STATE_SKIPPED_IN_ROW]},
                {tokens, double(step), double(bad), double(skipped)});
        c.close("bias", {found[MB_STATE_BIAS1], found[MB_STATE_BIAS2]},
                {1 - std::pow(beta1, step), 1 - std::pow(beta2, step)}, 1e-9);
      }
    }
  }
}

// A loss that weights have made negative is still gone down: norm and divisor count weights by their magnitude.
void negative_weights(Context& c, int) {
  for (const double clip : {0.0, 0.5}) {
    for (const double sign : {1.0, -1.0}) {
      const Tensor normsq(c, Values{400.0}, MB_F32);
      const Tensor acc(c, Values{sign * 30, sign * 10}, MB_F32);
      const Tensor state(c, Values(MB_STATE_COUNT, 0.0), MB_F64);
      c.run(MB_OP_OPTIMIZER_PREPARE, {&normsq, &acc, &state}, {clip, 0.9, 0.95, 1, 0, 0, 10, 0, 0});
      const Values found = state.read();
      c.close("norm", {found[MB_STATE_GRAD_NORM]}, {2}, 1e-9);
      c.close("scale", {found[MB_STATE_SCALE]}, {(clip == 0 ? 1 : clip / 2) / 10}, 1e-6);
      c.equal("loss, tokens", {found[MB_STATE_LOSS], found[MB_STATE_TOKENS]}, {sign * 3, sign * 10});
    }
  }
  const Tensor normsq(c, Values{400.0}, MB_F32);
  const Tensor acc(c, Values{1, 0}, MB_F32);
  const Tensor state(c, Values(MB_STATE_COUNT, 0.0), MB_F64);
  c.run(MB_OP_OPTIMIZER_PREPARE, {&normsq, &acc, &state}, {0, 0.9, 0.95, 1, 0, 0, 10, 0, 0});
  c.equal("skip where weights add up to nothing", {state.read()[MB_STATE_SKIP]}, {1});
}

void adamw(Context& c, int act) {
  const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1;
  for (const int64_t n : {1, 17, 5000}) {
    for (const bool separate : {true, false}) {
      if (!separate && act == MB_BF16) continue;  // out is p only where both are float32
      const size_t count = size_t(n);
      const Tensor p(c, c.random.uniforms(n, 0.5, 1.5), MB_F32);
      const Tensor m(c, Values(count, 0.0), MB_F32);
      const Tensor v(c, Values(count, 0.0), MB_F32);
      const Tensor other(c, n, act);
      const Tensor& out = separate ? other : p;
      Values rp = p.values(), rm(count, 0.0), rv(count, 0.0);
      for (int step = 1; step <= 3; ++step) {
        // Of one sign through the steps: a single moment near zero would have no relative accuracy.
        Values gradient = c.random.uniforms(n, 1, 5);
        for (size_t i = 1; i < count; i += 2) gradient[i] = -gradient[i];
        const Tensor g(c, gradient, MB_F32);
        Values state(MB_STATE_COUNT, 0.0);
        const double lr = 0.01 * step, scale = 0.25;
        state[MB_STATE_LR] = lr;
        state[MB_STATE_SCALE] = scale;
        state[MB_STATE_STEP] = step;
        state[MB_STATE_BIAS1] = 1 - std::pow(beta1, step);
        state[MB_STATE_BIAS2] = 1 - std::pow(beta2, step);
        const Tensor on_device(c, state, MB_F64);
        c.run(MB_OP_ADAMW, {&p, &m, &v, &g, &out, &on_device}, {double(n), beta1, beta2, eps, decay});
        for (size_t i = 0; i < count; ++i) {
          const double x = g.values()[i] * scale;
          rm[i] = beta1 * rm[i] + (1 - beta1) * x;
          rv[i] = beta2 * rv[i] + (1 - beta2) * x * x;
          rp[i] -= lr * decay * rp[i];
          rp[i] -= lr * (rm[i] / state[MB_STATE_BIAS1]) / (std::sqrt(rv[i] / state[MB_STATE_BIAS2]) + eps);
        }
        c.close("p", p.read(), rp, tolerance(MB_F32));
        c.close("m", m.read(), rm, tolerance(MB_F32));
        c.close("v", v.read(), rv, tolerance(MB_F32));
        c.equal("out", out.read(), rounded(p.read(), act));
      }
      // A skipped update changes nothing.
      const Values before = p.read(), first = m.read(), second = v.read();
      const Tensor g(c, Values(count, std::nan("")), MB_F32);
      Values state(MB_STATE_COUNT, 0.0);
      state[MB_STATE_SKIP] = 1;
      const Tensor on_device(c, state, MB_F64);
      c.run(MB_OP_ADAMW, {&p, &m, &v, &g, &out, &on_device}, {double(n), beta1, beta2, eps, decay});
      c.equal("p after a skip", p.read(), before);
      c.equal("m after a skip", m.read(), first);
      c.equal("v after a skip", v.read(), second);
    }
  }
}

struct Block {
  int64_t rows, cols, row0, col0, gcols;
};

// Every mix of types: near the exact numbers, rounded by the random bits of an element's own place, and so the same
// however a matrix is cut.
void adamw_rounded(Context& c, int act) {
  const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, lr = 0.01, scale = 0.25;
  const Block whole{48, 24, 5, 16, 1000};
  const std::vector<Block> cuts[] = {{whole}, {{1, 24, 5, 16, 1000}, {47, 24, 6, 16, 1000}}};
  const auto n = size_t(whole.rows * whole.cols);
  Values state(MB_STATE_COUNT, 0.0);
  state[MB_STATE_LR] = lr;
  state[MB_STATE_SCALE] = scale;
  state[MB_STATE_STEP] = 7;
  state[MB_STATE_BIAS1] = 1 - std::pow(beta1, 7);
  state[MB_STATE_BIAS2] = 1 - std::pow(beta2, 7);
  const Tensor on_device(c, state, MB_F64);
  const Values start = c.random.uniforms(int64_t(n), 0.5, 1.5), gradient = c.random.uniforms(int64_t(n), 1, 5);
  const auto run = [&](const std::vector<Block>& blocks, const int(&dtypes)[4], bool separate, Values(&found)[4]) {
    size_t done = 0;
    for (Values& each : found) each.clear();
    for (const Block& z : blocks) {
      const auto part = [&](const Values& of) {
        return Values(of.begin() + long(done), of.begin() + long(done + size_t(z.rows * z.cols)));
      };
      const Tensor p(c, part(start), dtypes[0]), m(c, part(Values(n, 0.125)), dtypes[1]),
          v(c, part(Values(n, 0.5)), dtypes[2]), g(c, part(gradient), dtypes[3]), out(c, z.rows * z.cols, act);
      c.run(MB_OP_ADAMW_ROUNDED, {&p, &m, &v, &g, separate ? &out : nullptr, &on_device},
            {double(z.rows), double(z.cols), double(z.row0), double(z.col0), double(z.gcols), beta1, beta2, eps, decay,
             11, 22, 33, 44});
      const Tensor* all[] = {&p, &m, &v, &out};
      for (int k = 0; k < 4; ++k) {
        const Values read = k < 3 || separate ? all[k]->read() : Values();
        found[k].insert(found[k].end(), read.begin(), read.end());
      }
      done += size_t(z.rows * z.cols);
    }
  };
  for (int mix = 0; mix < 32; ++mix) {
    const auto type = [&](int bit) { return mix & bit ? MB_BF16 : MB_F32; };
    const int dtypes[] = {type(1), type(2), type(4), type(16)};
    const bool separate = mix & 8;
    Values found[4], again[4];
    run(cuts[0], dtypes, separate, found);
    run(cuts[1], dtypes, separate, again);
    const char* names[] = {"p", "m", "v"};
    const Values p0 = rounded(start, dtypes[0]), g0 = rounded(gradient, dtypes[3]);
    size_t other = 0;
    double error[3] = {};
    for (size_t i = 0; i < n; ++i) {
      const double x = g0[i] * scale;
      const double m = beta1 * 0.125 + (1 - beta1) * x, v = beta2 * 0.5 + (1 - beta2) * x * x;
      const double step = (m / state[MB_STATE_BIAS1]) / (std::sqrt(v / state[MB_STATE_BIAS2]) + eps);
      const double exact[] = {p0[i] * (1 - lr * decay) - lr * step, m, v};
      const uint64_t index = uint64_t((whole.row0 + int64_t(i) / 24) * whole.gcols + whole.col0 + int64_t(i) % 24);
      const PhiloxWords words = philox4x32_10(uint32_t(index), 0, 7, 1, 11u ^ 33u, 22u ^ 44u);
      const uint32_t random[] = {words.w[1], words.w[0], words.w[0] >> 16};
      for (int k = 0; k < 3; ++k) {
        if (dtypes[k] == MB_F32) {
          c.close(names[k], {found[k][i]}, {exact[k]}, tolerance(MB_F32));
          continue;
        }
        // A backend's last bit of float32 may decide otherwise, where the random bits are as near as that.
        const double expected = double(bf16_to_f32(bf16_at_random(float(exact[k]), random[k])));
        other += found[k][i] != expected;
        c.is(std::fabs(found[k][i] / exact[k] - 1) < 1.0 / 128, std::string(names[k]) + " is a neighbour");
        error[k] += (found[k][i] / exact[k] - 1) / double(n);
      }
    }
    c.is(other <= n / 100, "other roundings than by the random bits: " + std::to_string(other));
    for (int k = 0; k < 3; ++k) c.is(std::fabs(error[k]) < 4e-4, std::string("mean error of ") + names[k]);
    for (int k = 0; k < 4; ++k) c.equal("the matrix in two parts", again[k], found[k]);
    if (separate) c.equal("out", found[3], rounded(found[0], act));
  }
  c.is(bf16_at_random(3.4e38f, 0xffff) == 0x7f7f, "what is finite stays finite");
  c.is(bf16_at_random(-INFINITY, 0xffff) == 0xff80, "infinity stays");
  c.is(std::isnan(bf16_to_f32(bf16_at_random(NAN, 0))), "NaN stays");
  c.is(bf16_at_random(1.0f, 0xffff) == 0x3f80, "what bf16 has is kept");
}

void philox_vectors(Context& c, int) {
  // Known answers published with Random123 (kat_vectors): counter, key, output of philox4x32-10.
  struct Known {
    uint32_t counter[4], key[2], words[4];
  };
  constexpr uint32_t kOnes = 0xffffffffu;
  for (const Known& k :
       {Known{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
        Known{{kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
        Known{{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
              {0xa4093822u, 0x299f31d0u},
              {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}}}) {
    const PhiloxWords found = philox4x32_10(k.counter[0], k.counter[1], k.counter[2], k.counter[3], k.key[0], k.key[1]);
    for (int i = 0; i < 4; ++i) c.is(found.w[i] == k.words[i], "word " + std::to_string(i));
  }
}

void init_normal(Context& c, int act) {
  const double seed_lo = 1234, seed_hi = 7, key_lo = 4000000000.0, key_hi = 99, std = 0.02;
  for (const Block& z : {Block{1, 1, 0, 0, 1}, Block{7, 9, 0, 0, 9}, Block{30, 11, 500, 13, 4096},
                         Block{3, 5, int64_t{1} << 22, 4000, 4096}}) {
    const Tensor out(c, z.rows * z.cols, act);
    c.run(MB_OP_INIT_NORMAL, {&out},
          {double(z.rows), double(z.cols), double(z.row0), double(z.col0), double(z.gcols), std, seed_lo, seed_hi,
           key_lo, key_hi});
    Values expected;
    for (int64_t r = 0; r < z.rows; ++r) {
      for (int64_t i = 0; i < z.cols; ++i) {
        const uint64_t index = uint64_t((z.row0 + r) * z.gcols + z.col0 + i);
        const PhiloxWords words =
            philox4x32_10(uint32_t(index), uint32_t(index >> 32), 0, 0, 1234u ^ 4000000000u, 7u ^ 99u);
        const double u1 = (double(words.w[0]) + 1) / 4294967296.0;
        const double u2 = double(words.w[1]) / 4294967296.0;
        expected.push_back(std * std::sqrt(-2 * std::log(u1)) * std::cos(2 * kPi * u2));
      }
    }
    c.close("out", out.read(), expected, tolerance(act));
  }
}

}  // namespace

const std::vector<Case> optimizer_cases = {
    {"optimizer_prepare", optimizer_prepare, false},
    {"negative weights", negative_weights, false},
    {"adamw", adamw, true},
    {"adamw_rounded", adamw_rounded, true},
    {"philox known answers", philox_vectors, false},
    {"init_normal", init_normal, true},
};

}  // namespace mb::test
