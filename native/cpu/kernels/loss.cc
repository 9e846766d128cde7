#include "cpu/kernels/functions.h"
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

// Sums of exponentials go to double every kRun columns: a vocabulary has 10^5 of them.
constexpr int64_t kRun = 64 * W;

void ce_stats(const Loss& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* x = p.logits + t * p.cols;
    V highest = splat(x[0]);
    for_lanes(p.cols, [&](int64_t i, auto lanes) {
      const V v = load(x + i, lanes);
      if constexpr (__is_same(decltype(lanes), Full)) {
        highest = vmax(v, highest);
      } else {
        for (int l = 0; l < lanes.n; ++l) highest[0] = v[l] > highest[0] ? v[l] : highest[0];
      }
    });
    const float m = max_lanes(highest);
    double sum = 0;
    for (int64_t at = 0; at < p.cols; at += kRun) {
      V run{};
      for_lanes(p.cols - at < kRun ? p.cols - at : kRun, [&](int64_t i, auto lanes) {
        V e = vexp(load(x + at + i, lanes) - splat(m));
        if constexpr (!__is_same(decltype(lanes), Full)) {
          for (int l = lanes.n; l < W; ++l) e[l] = 0.0f;
        }
        run += e;
      });
      sum += static_cast<double>(sum_lanes(run));
    }
    const int64_t target = p.targets[t] - p.vstart;
    p.stats[t] = m;
    p.stats[p.rows + t] = static_cast<float>(sum);
    p.stats[2 * p.rows + t] = target >= 0 && target < p.cols ? x[target] : 0.0f;
  }
}

void ce_rescale(float* sums, const float* max, const float* gmax, int64_t begin, int64_t end) {
  for_lanes(end - begin, [&](int64_t at, auto lanes) {
    const int64_t i = begin + at;
    store(sums + i, load(sums + i, lanes) * vexp(load(max + i, lanes) - load(gmax + i, lanes)), lanes);
  });
}

void ce_grad(const Loss& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    float* x = p.logits + t * p.cols;
    const float mask = p.mask[t];
    const float sum = p.sums[t];
    const float m = p.gmax[t];
    if (mask == 0.0f) {  // also where the logits are not finite: a masked token has no say
      for_lanes(p.cols, [&](int64_t i, auto lanes) { store(x + i, V{}, lanes); });
      p.rowloss[t] = 0.0f;
      continue;
    }
    p.rowloss[t] = (__builtin_logf(sum) + m - p.sums[p.rows + t]) * mask;
    const V factor = splat(mask / sum);
    for_lanes(p.cols,
              [&](int64_t i, auto lanes) { store(x + i, vexp(load(x + i, lanes) - splat(m)) * factor, lanes); });
    const int64_t target = p.targets[t] - p.vstart;
    if (target >= 0 && target < p.cols) x[target] -= mask;
  }
}

void token_moment(const TokenLoss& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* x = p.logits + t * p.cols;
    const V m = splat(p.gmax[t]);
    double sum = 0;
    for (int64_t at = 0; at < p.cols; at += kRun) {
      V run{};
      for_lanes(p.cols - at < kRun ? p.cols - at : kRun, [&](int64_t i, auto lanes) {
        const V d = load(x + at + i, lanes) - m;
        const V e = vexp(d);
        V term = e > V{} ? e * d : e;  // 0 of a logit of -inf, NaN of a NaN
        if constexpr (!__is_same(decltype(lanes), Full)) {
          for (int l = lanes.n; l < W; ++l) term[l] = 0.0f;
        }
        run += term;
      });
      sum += static_cast<double>(sum_lanes(run));
    }
    p.moment[t] = static_cast<float>(sum);
  }
}

void token_grad(const TokenLoss& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    float* x = p.logits + t * p.cols;
    const float dlogprob = p.dlogprob[t];
    const float dentropy = p.dentropy[t];
    if (dlogprob == 0.0f && dentropy == 0.0f) {
      for_lanes(p.cols, [&](int64_t i, auto lanes) { store(x + i, V{}, lanes); });
      continue;
    }
    // p * (-dlogprob - dentropy * (x - m - log sum + entropy)), with p = exp(x - m) / sum.
    const float sum = p.sums[t];
    const V m = splat(p.gmax[t]);
    const V constant = splat((-dlogprob - dentropy * (p.entropy[t] - __builtin_logf(sum))) / sum);
    const V slope = splat(-dentropy / sum);
    for_lanes(p.cols, [&](int64_t i, auto lanes) {
      const V d = load(x + i, lanes) - m;
      const V e = vexp(d);
      store(x + i, e > V{} ? e * (constant + slope * d) : e, lanes);
    });
    const int64_t target = p.targets[t] - p.vstart;
    if (target >= 0 && target < p.cols) x[target] += dlogprob;
  }
}

// Lanes beyond a part's last are 0.
MB_INLINE V only(V v, Full) { return v; }
MB_INLINE V only(V v, Part part) {
  for (int l = part.n; l < W; ++l) v[l] = 0.0f;
  return v;
}

void soft_sums(const Soft& p, int64_t begin, int64_t end) {
  const V inverse = splat(p.inverse);
  for (int64_t t = begin; t < end; ++t) {
    const float* x = p.logits + t * p.cols;
    const float* y = p.teacher == nullptr ? nullptr : p.teacher + t * p.cols;
    const V xmax = splat(p.gmax[t]);
    const V ymax = splat(y == nullptr ? 0.0f : p.tmax[t]);
    double student = 0, teacher = 0, cross = 0;
    for (int64_t at = 0; at < p.cols; at += kRun) {
      V run[3] = {};
      for_lanes(p.cols - at < kRun ? p.cols - at : kRun, [&](int64_t i, auto lanes) {
        const V dx = (load(x + at + i, lanes) - xmax) * inverse;
        run[0] += only(vexp(dx), lanes);
        if (y == nullptr) return;
        const V dy = (load(y + at + i, lanes) - ymax) * inverse;
        const V e = vexp(dy);
        run[1] += only(e, lanes);
        run[2] += only(e > V{} ? e * (dy - dx) : e, lanes);  // 0 of a teacher's -inf, NaN of a NaN
      });
      student += static_cast<double>(sum_lanes(run[0]));
      teacher += static_cast<double>(sum_lanes(run[1]));
      cross += static_cast<double>(sum_lanes(run[2]));
    }
    p.sums[t] = static_cast<float>(student);
    if (y == nullptr) continue;
    p.sums[p.rows + t] = static_cast<float>(teacher);
    p.sums[2 * p.rows + t] = static_cast<float>(cross);
  }
}

void soft_grad(const SoftGrad& p) {
  const V xmax = splat(p.xmax), ymax = splat(p.ymax), inverse = splat(p.inverse);
  const V student = splat(p.student), teacher = splat(p.teacher);
  for_lanes(p.cols, [&](int64_t i, auto lanes) {
    V g = vexp((load(p.x + i, lanes) - xmax) * inverse) * student;
    if (p.y != nullptr) g -= vexp((load(p.y + i, lanes) - ymax) * inverse) * teacher;
    store(p.x + i, g, lanes);
  });
}

}  // namespace mb::MB_ISA
