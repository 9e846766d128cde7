// Tests of the all-reduce of small tensors over members' memory.
#pragma once
#include "cuda/tests/peer_member.h"

namespace mb::cuda::peer_test {

// Added in the order of ranks in float32 and rounded once: to the bit what the host makes of it.
inline void test_all_reduce(Member& m, int dtype, int64_t count, bool maximum) {
  snprintf(m.name, sizeof m.name, "all_reduce_small dtype %d, %lld, maximum %d", dtype, static_cast<long long>(count),
           maximum);
  const auto values_of = [&](int member) { return Member::values(10 + static_cast<uint64_t>(member), count, dtype); };
  Doubles expected = values_of(0);
  for (int member = 1; member < m.size(); member++) {
    const Doubles part = values_of(member);
    for (size_t i = 0; i < part.size(); i++) {
      const float sum = static_cast<float>(expected[i]) + static_cast<float>(part[i]);
      expected[i] = maximum ? fmax(expected[i], part[i]) : static_cast<double>(sum);
    }
  }
  if (dtype == MB_BF16) {
    for (double& x : expected) x = mb::bf16_to_f32(mb::f32_to_bf16(static_cast<float>(x)));
  }
  const mb_buf x = m.take(count, dtype), after = m.take(16, MB_F32);
  const double scalars[] = {static_cast<double>(count), static_cast<double>(maximum)};
  for (int round = 0; round < 2; round++) {
    Member::write(x, values_of(m.rank()));
    m.meet();
    run(m, kernels::all_reduce_small(m.stream(), m.next(), &x, 1, scalars, 2), "launched");
    m.is(Member::read(x) == expected, "the bits of a sum in the order of ranks");
  }
  const Doubles untouched = Member::read(after);
  m.is(untouched[0] != untouched[0], "nothing beyond is written");
  m.reset();
}

// Round after round without the host between, each member early or late by chance: a member that writes too early
// changes what another still reads.
inline void test_order_in_place(Member& m, int rounds) {
  snprintf(m.name, sizeof m.name, "order in place");
  constexpr int kValues = 4;
  constexpr int64_t kCount = MB_COMM_SMALL / 4;
  const auto value = [](int member, int round) { return (1 + member + 2 * (round % kValues)) / 8.0; };
  const mb_buf x = m.take(kCount, MB_F32), results = m.take(rounds, MB_F32), lasts = m.take(rounds, MB_F32);
  mb_buf inputs[kValues];
  for (int i = 0; i < kValues; i++) {
    inputs[i] = m.take(kCount, MB_F32);
    Member::write(inputs[i], Doubles(static_cast<size_t>(kCount), value(m.rank(), i)));
  }
  const auto keep = [&](int64_t element, const mb_buf& to, int round) {
    CUDA(cudaMemcpyAsync(static_cast<float*>(to.ptr) + round, static_cast<float*>(x.ptr) + element, sizeof(float),
                         cudaMemcpyDeviceToDevice, m.stream()));
  };
  const double scalars[] = {static_cast<double>(kCount), 0};
  bool launched = true;
  m.meet();
  for (int round = 0; round < rounds; round++) {
    usleep(static_cast<useconds_t>(150 * (1 + peer_test::value(static_cast<uint64_t>(m.rank()), round))));
    CUDA(cudaMemcpyAsync(x.ptr, inputs[round % kValues].ptr, static_cast<size_t>(x.bytes), cudaMemcpyDeviceToDevice,
                         m.stream()));
    launched = launched && !kernels::all_reduce_small(m.stream(), m.next(), &x, 1, scalars, 2);
    keep(0, results, round);
    keep(kCount - 1, lasts, round);
    CUDA(cudaMemsetAsync(x.ptr, 0xff, static_cast<size_t>(x.bytes), m.stream()));
  }
  run(m, launched ? MB_OK : MB_ERR_ARGUMENT, "launched");
  Doubles totals;
  for (int round = 0; round < rounds; round++) {
    totals.push_back(0);
    for (int member = 0; member < m.size(); member++) totals.back() += value(member, round);
  }
  m.is(Member::read(results) == totals && Member::read(lasts) == totals, "the sum of every round");
  m.reset();
}

}  // namespace mb::cuda::peer_test
