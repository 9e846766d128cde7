#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>

#include "tests/harness.h"

namespace mb::test {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

double best_ms(Context& c, const std::function<void()>& call) {
  call();
  c.table->synchronize(c.device);
  std::vector<double> times;
  const double start = now();
  while (times.size() < 3 || (times.size() < 30 && now() - start < 0.2)) {
    const double t0 = now();
    call();
    c.table->synchronize(c.device);
    times.push_back(1e3 * (now() - t0));
  }
  return *std::min_element(times.begin(), times.end());
}

namespace {

void gemm(Context& c, int act, int64_t m, int64_t n, int64_t k, bool ta, bool tb) {
  const Tensor a(c, c.random.uniforms(m * k), act);
  const Tensor b(c, c.random.uniforms(k * n), act);
  const Tensor d(c, m * n, act);
  const double ms = best_ms(c, [&] {
    c.run(MB_OP_GEMM, {&a, &b, nullptr, &d},
          {double(m), double(n), double(k), double(ta), double(tb), double(ta ? m : k), double(tb ? k : n), 0,
           double(n), 1, 0, 0});
  });
  printf("gemm %s %5lld x %5lld x %5lld %c%c  %9.3f ms  %9.1f GFLOP/s\n", act == MB_F32 ? "f32 " : "bf16", (long long)m,
         (long long)n, (long long)k, ta ? 'T' : 'N', tb ? 'T' : 'N', ms, 2e-6 * double(m) * double(n) * double(k) / ms);
}

void report(Context& c, const char* name, double bytes, const std::function<void()>& call) {
  const double ms = best_ms(c, call);
  printf("%-22s %9.3f ms  %7.2f GB/s\n", name, ms, bytes / ms * 1e-6);
}

}  // namespace

// The ops at the sizes of a 4-layer model of hidden size 256: 8 sequences of 256 tokens, 8 heads, 4 kv heads of 32.
void bench(Context& c) {
  c.begin("bench");
  mb_device_info info;
  c.table->info(c.device, &info);
  printf("%s, %d threads, %s\n", info.name, info.threads, c.table->describe());
  const std::vector<int> dtypes = c.cuda() ? std::vector<int>{MB_F32, MB_BF16} : std::vector<int>{MB_F32};
  for (const int act : dtypes) {
    for (const int64_t n : {64, 128, 256, 512, 1024}) gemm(c, act, n, n, n, false, true);
    // Forward, data gradient and weight gradient of a layer.
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{512, 256}, {256, 256}, {1536, 256}, {256, 768}, {4096, 256}}) {
      gemm(c, act, 2048, n, k, false, true);
      gemm(c, act, 2048, k, n, false, false);
      gemm(c, act, n, k, 2048, true, false);
    }
    const int64_t b = 8, s = 256, t = b * s, hq = 8, hkv = 4, d = 32, h = 256, f = 768, v = 4096;
    const int64_t width = (hq + 2 * hkv) * d;
    const double size = act == MB_F32 ? 4 : 2;
    const Tensor x(c, c.random.uniforms(t * h), act), y(c, t * h, act), w(c, c.random.uniforms(h), act),
        z(c, t * h, act);
    const Tensor rstd(c, Values(size_t(t * (hq + hkv)), 1.0), MB_F32), dw(c, h, MB_F32);
    const Tensor ws(c, MB_REDUCE_PARTS * h, MB_F32);
    report(c, "rmsnorm_fwd", 2 * size * double(t * h), [&] {
      c.run(MB_OP_RMSNORM_FWD, {&x, &w, &y, &rstd}, {double(t), double(h), 1e-6});
    });
    report(c, "add_rmsnorm_fwd", 4 * size * double(t * h), [&] {
      c.run(MB_OP_ADD_RMSNORM_FWD, {&x, &x, &w, &z, &y, &rstd}, {double(t), double(h), 1e-6});
    });
    report(c, "rmsnorm_bwd", 3 * size * double(t * h), [&] {
      c.run(MB_OP_RMSNORM_BWD, {&x, &x, &w, &rstd, &y, &dw, &ws}, {double(t), double(h), 0, 0});
    });
    const Tensor qkv(c, c.random.uniforms(t * width), act), dqkv(c, t * width, act), table(c, s * d, MB_F32);
    const Tensor wq(c, c.random.uniforms(d), act), dwq(c, d, MB_F32), dwk(c, d, MB_F32);
    Values position(static_cast<size_t>(t));
    for (size_t i = 0; i < position.size(); ++i) position[i] = double(int64_t(i) % s);
    const Tensor positions(c, position, MB_I32);
    c.run(MB_OP_ROPE_TABLE, {&table, nullptr}, {double(s), double(d), 1e6, 1});
    report(c, "qknorm_rope_fwd", 2 * size * double(t * width), [&] {
      c.run(MB_OP_QKNORM_ROPE_FWD, {&qkv, &wq, &wq, &table, &positions, &dqkv, &rstd},
            {double(t), double(hq), double(hkv), double(d), 1e-6});
    });
    report(c, "qknorm_rope_bwd", 3 * size * double(t * width), [&] {
      c.run(MB_OP_QKNORM_ROPE_BWD, {&dqkv, &qkv, &wq, &wq, &table, &positions, &rstd, &dwq, &dwk, &ws},
            {double(t), double(hq), double(hkv), double(d), 0});
    });
    for (const int64_t length : {s, t}) {
      const int64_t batch = t / length;
      int64_t bytes = 0;
      char kernel[64] = "";
      c.table->attention_workspace(c.device, act, batch, length, length, hq, hkv, d, 0, 1, &bytes, kernel);
      const Tensor space(c, (bytes + 3) / 4, MB_F32);
      const Tensor o(c, t * hq * d, act), lse(c, t * hq, MB_F32), dout(c, c.random.uniforms(t * hq * d), act);
      const int64_t q_width = hq * d, kv_width = hkv * d;
      const auto columns = [&](const Tensor& all, int64_t from, int64_t n) {
        return all.part(from, (t - 1) * width + n);
      };
      const auto query = [&](const Tensor& all) { return columns(all, 0, q_width); };
      const auto key = [&](const Tensor& all) { return columns(all, q_width, kv_width); };
      const auto value = [&](const Tensor& all) { return columns(all, q_width + kv_width, kv_width); };
      std::vector<double> sizes = {double(batch), double(length), double(length), double(hq),    double(hkv),
                                   double(d),     double(width),  double(width),  double(width), double(q_width)};
      const std::vector<double> rest = {double(length), 0, 1 / std::sqrt(double(d)), 1};
      std::vector<double> backward = sizes;
      backward.insert(backward.end(), 3, double(width));
      for (std::vector<double>* scalars : {&sizes, &backward})
        scalars->insert(scalars->end(), rest.begin(), rest.end());
      const mb_buf none = {nullptr, 0, MB_F32, 0};
      const double flops = 4.0 * double(batch * hq) * double(length) * double(length) / 2 * double(d);
      sizes.push_back(0);
      double ms = best_ms(c, [&] {
        c.run_on(MB_OP_ATTENTION_FWD, {query(qkv), key(qkv), value(qkv), o.buf(), lse.buf(), none, space.buf()}, sizes);
      });
      printf("attention_fwd s %-6lld %9.3f ms  %7.1f GFLOP/s (%s)\n", (long long)length, ms, flops * 1e-6 / ms, kernel);
      ms = best_ms(c, [&] {
        c.run_on(MB_OP_ATTENTION_BWD,
                 {query(qkv), key(qkv), value(qkv), o.buf(), lse.buf(), dout.buf(), query(dqkv), key(dqkv), value(dqkv),
                  none, space.buf()},
                 backward);
      });
      printf("attention_bwd s %-6lld %9.3f ms  %7.1f GFLOP/s\n", (long long)length, ms, 2.5 * flops * 1e-6 / ms);
    }
    const Tensor gu(c, c.random.uniforms(t * 2 * f, -4, 4), act), act_out(c, t * f, act), dgu(c, t * 2 * f, act);
    report(c, "swiglu_fwd", 3 * size * double(t * f), [&] {
      c.run(MB_OP_SWIGLU_FWD, {&gu, &act_out}, {double(t), double(f)});
    });
    report(c, "swiglu_bwd", 5 * size * double(t * f), [&] {
      c.run(MB_OP_SWIGLU_BWD, {&act_out, &gu, &dgu}, {double(t), double(f)});
    });
    const Tensor logits(c, c.random.uniforms(t * v, -4, 4), act), targets(c, Values(size_t(t), 7.0), MB_I32);
    const Tensor stats(c, 3 * t, MB_F32), mask(c, Values(size_t(t), 1.0), MB_F32), acc(c, Values{0, 0}, MB_F32);
    const Tensor gmax(c, Values(size_t(t), 4.0), MB_F32), sums(c, Values(size_t(2 * t), 9.0), MB_F32),
        rows(c, t, MB_F32);
    report(c, "ce_stats", size * double(t * v), [&] {
      c.run(MB_OP_CE_STATS, {&logits, &targets, &stats}, {double(t), double(v), 0});
    });
    report(c, "ce_grad", 2 * size * double(t * v), [&] {
      c.run(MB_OP_CE_GRAD, {&logits, &targets, &mask, &gmax, &sums, &acc, &rows}, {double(t), double(v), 0});
    });
    const int64_t n = 4 << 20;
    const Tensor p(c, c.random.uniforms(n), MB_F32), m(c, Values(size_t(n), 0.0), MB_F32),
        g(c, c.random.uniforms(n), MB_F32);
    const Tensor second(c, Values(size_t(n), 0.0), MB_F32), out(c, n, act);
    Values state(MB_STATE_COUNT, 0.5);
    state[MB_STATE_SKIP] = 0;
    const Tensor scalars(c, state, MB_F64);
    report(c, "adamw", (7 * 4 + size) * double(n), [&] {
      c.run(MB_OP_ADAMW, {&p, &m, &second, &g, &out, &scalars}, {double(n), 0.9, 0.95, 1e-8, 0.1});
    });
    report(c, "sumsq", 4 * double(n), [&] { c.run(MB_OP_SUMSQ, {&g, &rows, &ws}, {double(n), 0}); });
    report(c, "add", 12 * double(n), [&] { c.run(MB_OP_ADD, {&p, &g, &m}, {double(n)}); });
    report(c, "init_normal", size * double(n / 4), [&] {
      c.run(MB_OP_INIT_NORMAL, {&out}, {double(n / 4 / 256), 256, 0, 0, 256, 0.02, 1, 0, 2, 0});
    });
  }
}

}  // namespace mb::test
