// The kernels over members' memory against float64, in groups of 2, 4 and 8 processes on as many GPUs as there are.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <new>

#include "cuda/tests/peer_all_reduce.h"
#include "cuda/tests/peer_member.h"

namespace mb::cuda::peer_test {
namespace {

double tolerance_of(int dtype) { return dtype == MB_BF16 ? 1e-2 : 5e-6; }

struct Case {
  int dtype;
  int64_t rows, cols;
};

// The members' partial sums, at all rows; member `m`'s come from seed 10 + m.
Doubles total_of(const Member& m, const Case& c) {
  Doubles sum(static_cast<size_t>(m.size() * c.rows * c.cols));
  for (int member = 0; member < m.size(); member++) {
    const Doubles part = Member::values(10 + static_cast<uint64_t>(member), m.size() * c.rows * c.cols, c.dtype);
    for (size_t i = 0; i < sum.size(); i++) sum[i] += part[i];
  }
  return sum;
}
mb_buf partial_of(Member& m, const Case& c) {
  const int64_t count = m.size() * c.rows * c.cols;
  const mb_buf buf = m.take(count, c.dtype);
  Member::write(buf, Member::values(10 + static_cast<uint64_t>(m.rank()), count, c.dtype));
  return buf;
}
// Member `member`'s rows of what all members have.
Doubles rows_of(const Doubles& all, const Case& c, int member) {
  const auto begin = all.begin() + member * c.rows * c.cols;
  return Doubles(begin, begin + c.rows * c.cols);
}

void test_reduce(Member& m, int dtype, int64_t count) {
  snprintf(m.name, sizeof m.name, "reduce dtype %d, %lld", dtype, static_cast<long long>(count));
  const Case c = {dtype, 1, count};
  const mb_buf partial = partial_of(m, c);
  const mb_buf out = m.take(count, dtype);
  char* slice = static_cast<char*>(partial.ptr) + m.rank() * out.bytes;
  const Doubles expected = rows_of(total_of(m, c), c, m.rank());
  kernels::reduce(m.stream(), m.next(), slice, out.ptr, count, dtype);
  run(m, MB_OK, "launched");
  m.close("sum", Member::read(out), expected, tolerance_of(dtype));
  // In place: over the rank's own slice, which nobody else reads.
  kernels::reduce(m.stream(), m.next(), slice, slice, count, dtype);
  run(m, MB_OK, "launched");
  m.is(Member::read({slice, out.bytes, dtype, 0}) == Member::read(out), "in place: the same bits");
  m.reset();
}

void test_forward(Member& m, const Case& c) {
  snprintf(m.name, sizeof m.name, "reduce_norm_gather dtype %d, [%lld, %lld]", c.dtype, static_cast<long long>(c.rows),
           static_cast<long long>(c.cols));
  const int64_t n = c.rows * c.cols;
  const double eps = 1e-6;
  const Doubles w = Member::values(1, c.cols, c.dtype), total = total_of(m, c);
  const auto residual_of = [&](int member) { return Member::values(100 + static_cast<uint64_t>(member), n, c.dtype); };
  const mb_buf partial = partial_of(m, c), full = m.take(m.size() * n, c.dtype);
  const mb_buf weight = m.take(c.cols, c.dtype), residual = m.take(n, c.dtype), sum = m.take(n, c.dtype),
               y = m.take(n, c.dtype), rstd = m.take(c.rows, MB_F32);
  Member::write(weight, w);
  Member::write(residual, residual_of(m.rank()));
  const mb_buf tensors[] = {partial, residual, weight, sum, y, full, rstd};
  const double scalars[] = {static_cast<double>(c.rows), static_cast<double>(c.cols), eps};
  m.meet();
  run(m, kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 7, scalars, 3), "launched");

  Doubles all_y, own_sum, own_rstd;
  for (int member = 0; member < m.size(); member++) {
    const Doubles part = rows_of(total, c, member), before = residual_of(member);
    for (int64_t row = 0; row < c.rows; row++) {
      Doubles x;
      double squares = 0;
      for (int64_t i = row * c.cols; i < (row + 1) * c.cols; i++) {
        x.push_back(part[static_cast<size_t>(i)] + before[static_cast<size_t>(i)]);
        squares += x.back() * x.back();
      }
      const double r = 1 / sqrt(squares / static_cast<double>(c.cols) + eps);
      for (size_t i = 0; i < x.size(); i++) all_y.push_back(x[i] * r * w[i]);
      if (member != m.rank()) continue;
      own_sum.insert(own_sum.end(), x.begin(), x.end());
      own_rstd.push_back(r);
    }
  }
  const double tolerance = tolerance_of(c.dtype);
  m.close("sum", Member::read(sum), own_sum, tolerance);
  m.close("rstd", Member::read(rstd), own_rstd, tolerance);
  m.close("y", Member::read(y), rows_of(all_y, c, m.rank()), tolerance);
  const Doubles gathered = Member::read(full);
  m.close("full", gathered, all_y, tolerance);
  m.is(rows_of(gathered, c, m.rank()) == Member::read(y), "full holds y to the bit");

  // The sum over the residual, and the same bits again.
  const mb_buf again[] = {partial, residual, weight, residual, y, full, rstd};
  m.meet();
  run(m, kernels::reduce_norm_gather(m.stream(), m.next(), again, 7, scalars, 3), "launched");
  m.is(Member::read(residual) == Member::read(sum) && Member::read(full) == gathered, "in place: the same bits");
  m.reset();
}

void test_backward(Member& m, const Case& c, bool accumulate, bool wants_full, bool wants_dw) {
  snprintf(m.name, sizeof m.name, "norm_bwd_gather dtype %d, [%lld, %lld], accumulate %d, full %d, dw %d", c.dtype,
           static_cast<long long>(c.rows), static_cast<long long>(c.cols), accumulate, wants_full, wants_dw);
  const int64_t n = c.rows * c.cols;
  const Doubles w = Member::values(1, c.cols, c.dtype), total = total_of(m, c);
  const auto x_of = [&](int member) { return Member::values(200 + static_cast<uint64_t>(member), n, c.dtype); };
  const auto dx_of = [&](int member) { return Member::values(300 + static_cast<uint64_t>(member), n, c.dtype); };
  const auto rstd_of = [&](int member) { return Member::values(400 + static_cast<uint64_t>(member), c.rows, MB_F32); };
  const Doubles old_dw = Member::values(2, c.cols, MB_F32);
  const mb_buf partial = partial_of(m, c), full = m.take(m.size() * n, c.dtype);
  const mb_buf weight = m.take(c.cols, c.dtype), x = m.take(n, c.dtype), dx = m.take(n, c.dtype),
               rstd = m.take(c.rows, MB_F32), dw = m.take(c.cols, MB_F32),
               ws = m.take(MB_REDUCE_PARTS * c.cols, MB_F32);
  Member::write(weight, w);
  Member::write(x, x_of(m.rank()));
  Member::write(rstd, rstd_of(m.rank()));
  const mb_buf none = {nullptr, 0, MB_F32, 0};
  const mb_buf tensors[] = {partial, x, weight, rstd, dx, wants_dw ? dw : none, ws, wants_full ? full : none};
  const double scalars[] = {static_cast<double>(c.rows), static_cast<double>(c.cols), double(accumulate),
                            double(accumulate)};
  Doubles first_dx, first_dw;
  for (int round = 0; round < 2; round++) {
    if (accumulate) Member::write(dx, dx_of(m.rank()));
    if (accumulate) Member::write(dw, old_dw);
    m.meet();
    run(m, kernels::norm_bwd_gather(m.stream(), m.next(), tensors, 8, scalars, 4), "launched");
    if (round == 1) {
      m.is(Member::read(dx) == first_dx && (!wants_dw || Member::read(dw) == first_dw), "the same bits again");
    }
    first_dx = Member::read(dx);
    first_dw = Member::read(dw);
  }

  Doubles all_dx, own_dw = accumulate ? old_dw : Doubles(static_cast<size_t>(c.cols));
  for (int member = 0; member < m.size(); member++) {
    const Doubles dy = rows_of(total, c, member), input = x_of(member), old = dx_of(member), r = rstd_of(member);
    for (int64_t row = 0; row < c.rows; row++) {
      const size_t base = static_cast<size_t>(row * c.cols);
      const double scale = r[static_cast<size_t>(row)];
      double mean = 0;
      for (size_t i = 0; i < w.size(); i++) mean += dy[base + i] * w[i] * input[base + i] * scale;
      mean /= static_cast<double>(c.cols);
      for (size_t i = 0; i < w.size(); i++) {
        const double normed = input[base + i] * scale;
        all_dx.push_back((accumulate ? old[base + i] : 0) + scale * (dy[base + i] * w[i] - normed * mean));
        if (member == m.rank()) own_dw[i] += dy[base + i] * normed;
      }
    }
  }
  const double tolerance = tolerance_of(c.dtype);
  m.close("dx", first_dx, rows_of(all_dx, c, m.rank()), tolerance);
  if (wants_dw) m.close("dw", first_dw, own_dw, tolerance);
  if (wants_full) {
    const Doubles gathered = Member::read(full);
    m.close("full", gathered, all_dx, tolerance);
    m.is(rows_of(gathered, c, m.rank()) == first_dx, "full holds dx to the bit");
  }
  m.reset();
}

// Refused without a launch, so no member waits for one.
void test_refusals(Member& m) {
  snprintf(m.name, sizeof m.name, "refusals");
  const mb_buf any = m.take(8 * 16 * m.size(), MB_BF16);
  const mb_buf tensors[] = {any, any, any, any, any, any, any};
  const double cols9[] = {1, 9, 1e-6}, wide[] = {1, 8200, 1e-6}, fine[] = {1, 16, 1e-6};
  m.is(kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 7, cols9, 3) == MB_ERR_ARGUMENT, "9 columns");
  m.is(kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 7, wide, 3) == MB_ERR_ARGUMENT, "8200 columns");
  m.is(kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 7, fine, 3) == MB_ERR_ARGUMENT, "overlaps");
  m.is(kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 6, fine, 3) == MB_ERR_ARGUMENT, "6 tensors");
  const mb_buf one = {any.ptr, 32, MB_BF16, 0};
  const mb_buf at = {static_cast<char*>(any.ptr) + 64, 32 * m.size(), MB_BF16, 0};
  const mb_buf twice[] = {at, one, one, one, one, at, one};
  m.is(kernels::reduce_norm_gather(m.stream(), m.next(), twice, 7, fine, 3) == MB_ERR_ARGUMENT, "sum is y");
  const double odd[] = {9, 0}, large[] = {MB_COMM_SMALL / 2 + 8, 0}, neither[] = {16, 2};
  m.is(kernels::all_reduce_small(m.stream(), m.next(), &any, 1, odd, 2) == MB_ERR_ARGUMENT, "9 elements");
  m.is(kernels::all_reduce_small(m.stream(), m.next(), &any, 1, large, 2) == MB_ERR_ARGUMENT, "too many elements");
  m.is(kernels::all_reduce_small(m.stream(), m.next(), &any, 1, neither, 2) == MB_ERR_ARGUMENT, "maximum 2");
  m.reset();
}

// Round after round without the host between, each member early or late by chance: what goes in is overwritten as soon
// as the op is enqueued, and what comes out is copied away at once, so an op that begins too early or ends too late is
// seen.
void test_order(Member& m, int rounds) {
  snprintf(m.name, sizeof m.name, "order");
  constexpr int kValues = 4;
  const Case c = {MB_BF16, 90, 512};
  const int64_t n = c.rows * c.cols;
  const auto value = [](int member, int round) { return (1 + member + 2 * (round % kValues)) / 8.0; };
  const mb_buf partial = m.take(m.size() * n, c.dtype), full = m.take(m.size() * n, c.dtype);
  const mb_buf residual = m.take(n, c.dtype), sum = m.take(n, c.dtype), y = m.take(n, c.dtype),
               rstd = m.take(c.rows, MB_F32);
  Member::write(residual, Doubles(static_cast<size_t>(n), 0));
  mb_buf inputs[kValues], weights[kValues];
  for (int i = 0; i < kValues; i++) {
    inputs[i] = m.take(m.size() * n, c.dtype);
    weights[i] = m.take(c.cols, c.dtype);
    Member::write(inputs[i], Doubles(static_cast<size_t>(m.size() * n), value(m.rank(), i)));
    Member::write(weights[i], Doubles(static_cast<size_t>(c.cols), value(m.rank(), i)));
  }
  // Only the first row of each member's part is kept of `full`.
  std::vector<mb_buf> sums, gathered;
  for (int round = 0; round < rounds; round++) {
    sums.push_back(m.take(c.cols, c.dtype));
    gathered.push_back(m.take(m.size() * c.cols, c.dtype));
  }
  const auto copy = [&](const mb_buf& from, int64_t row, const mb_buf& to, int64_t to_row) {
    const size_t bytes = static_cast<size_t>(c.cols * 2);
    CUDA(cudaMemcpyAsync(static_cast<char*>(to.ptr) + static_cast<size_t>(to_row) * bytes,
                         static_cast<char*>(from.ptr) + static_cast<size_t>(row) * bytes, bytes,
                         cudaMemcpyDeviceToDevice, m.stream()));
  };
  const auto poison = [&](const mb_buf& buf) {
    CUDA(cudaMemsetAsync(buf.ptr, 0xff, static_cast<size_t>(buf.bytes), m.stream()));
  };
  const double scalars[] = {static_cast<double>(c.rows), static_cast<double>(c.cols), 1e-9};
  bool launched = true;
  m.meet();
  for (int round = 0; round < rounds; round++) {
    usleep(static_cast<useconds_t>(150 * (1 + value(static_cast<uint64_t>(m.rank()), round))));
    CUDA(cudaMemcpyAsync(partial.ptr, inputs[round % kValues].ptr, static_cast<size_t>(partial.bytes),
                         cudaMemcpyDeviceToDevice, m.stream()));
    if (round % 3 == 0) {
      const void* slice = static_cast<char*>(partial.ptr) + m.rank() * sum.bytes;
      kernels::reduce(m.stream(), m.next(), slice, sum.ptr, n, c.dtype);
    } else {
      const mb_buf tensors[] = {partial, residual, weights[round % kValues], sum, y, full, rstd};
      launched = launched && !kernels::reduce_norm_gather(m.stream(), m.next(), tensors, 7, scalars, 3);
    }
    poison(partial);
    copy(sum, c.rows - 1, sums[static_cast<size_t>(round)], 0);
    for (int member = 0; member < m.size(); member++) {
      copy(full, member * c.rows, gathered[static_cast<size_t>(round)], member);
    }
    poison(sum);
    poison(full);
  }
  run(m, launched ? MB_OK : MB_ERR_ARGUMENT, "launched");
  for (int round = 0; round < rounds; round++) {
    double total = 0;
    Doubles normed;
    for (int member = 0; member < m.size(); member++) {
      total += value(member, round);
      normed.insert(normed.end(), static_cast<size_t>(c.cols), value(member, round));
    }
    m.close("sum of a round", Member::read(sums[static_cast<size_t>(round)]),
            Doubles(static_cast<size_t>(c.cols), total), 1e-2);
    if (round % 3) m.close("full of a round", Member::read(gathered[static_cast<size_t>(round)]), normed, 1e-2);
  }
  m.reset();
}

// A member that is gone ends nobody's wait; an abort does.
void test_abort(Member& m) {
  snprintf(m.name, sizeof m.name, "abort");
  if (m.rank() == 0) {
    kernels::meet(m.stream(), m.next(), kernels::Phase::kBegin);
    usleep(20000);
    m.is(cudaStreamQuery(m.stream()) == cudaErrorNotReady, "it waits");
    cudaGetLastError();
    m.abort();
    CUDA(cudaStreamSynchronize(m.stream()));
    m.is(true, "it ends");
  }
  m.meet();
}

void run_member(Board* board, int rank, int size) {
  alarm(150);  // a test of waiting ends, too
  Member m(board, rank, size);
  for (int dtype : {MB_F32, MB_BF16}) {
    const int64_t unit = dtype == MB_F32 ? 4 : 8;
    for (int64_t vectors : {1, 3, 1237, 70001}) test_reduce(m, dtype, vectors * unit);
    for (int64_t vectors : {1, 3, 513, MB_COMM_SMALL / 16}) {
      for (bool maximum : {false, true}) test_all_reduce(m, dtype, vectors * unit, maximum);
    }
    const Case cases[] = {{dtype, 1, unit},      {dtype, 3, 5 * unit}, {dtype, 37, 1024},
                          {dtype, 70, 2560 + 8}, {dtype, 5, 4096},     {dtype, 2, 8192}};
    for (const Case& c : cases) {
      test_forward(m, c);
      test_backward(m, c, false, true, true);
      test_backward(m, c, true, true, true);
    }
    test_backward(m, cases[2], true, false, true);
    test_backward(m, cases[2], false, true, false);
  }
  test_order(m, 200);
  test_order_in_place(m, 200);
  test_refusals(m);
  test_abort(m);
}

// In children, because a process that has used CUDA cannot fork.
bool run_group(int size) {
  void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap", strerror(errno));
  Board* board = new (memory) Board();
  std::vector<pid_t> members;
  for (int rank = 0; rank < size; rank++) {
    const pid_t member = fork();
    if (member < 0) die("fork", strerror(errno));
    if (member == 0) {
      run_member(board, rank, size);
      fflush(stderr);
      _exit(0);
    }
    members.push_back(member);
  }
  bool ended_well = true;
  for (size_t i = 0; i < members.size(); i++) {
    int status = 0;
    wait(&status);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    if (ended_well) board->failed++;
    ended_well = false;
    for (pid_t member : members) kill(member, SIGKILL);  // they would wait for it
  }
  printf("groups of %d: %d checks, %d failed\n", size, board->checks.load(), board->failed.load());
  fflush(stdout);
  return ended_well && board->failed == 0;
}

}  // namespace
}  // namespace mb::cuda::peer_test

int main(int argc, char** argv) {
  using namespace mb::cuda::peer_test;
  std::vector<int> sizes = {2, 4, 8};
  if (argc > 1) sizes.clear();
  for (int i = 1; i < argc; i++) {
    sizes.push_back(atoi(argv[i]));
    const int size = sizes.back();
    if (size != 2 && size != 4 && size != 8) die(argv[i], "a group has 2, 4 or 8 members");
  }
  bool good = true;
  for (int size : sizes) good = run_group(size) && good;
  return good ? 0 : 1;
}
