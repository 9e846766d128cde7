// Every collective, dtype and group size against a serial reference, bit for bit.
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "comm/table.h"
#include "core/dtype.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();
const int kDtypes[] = {MB_F32, MB_BF16, MB_I32, MB_F64};

// Element i of what `rank` contributes: values whose sum depends on its order.
double value(int dtype, int rank, int64_t i) {
  const uint64_t h = hash(static_cast<uint64_t>(rank) << 40 ^ static_cast<uint64_t>(i));
  if (dtype == MB_I32) return static_cast<double>(static_cast<int32_t>(h));
  const double x = static_cast<double>(static_cast<int64_t>(h)) * 0x1p-63 * ((h & 7) == 0 ? 1000 : 1);
  return dtype == MB_F64 ? x : static_cast<float>(x);
}

void put(int dtype, void* data, int64_t i, double x) {
  if (dtype == MB_F32) static_cast<float*>(data)[i] = static_cast<float>(x);
  if (dtype == MB_F64) static_cast<double*>(data)[i] = x;
  if (dtype == MB_I32) static_cast<int32_t*>(data)[i] = static_cast<int32_t>(x);
  if (dtype == MB_BF16) static_cast<uint16_t*>(data)[i] = f32_to_bf16(static_cast<float>(x));
}

double get(int dtype, const void* data, int64_t i) {
  if (dtype == MB_F32) return static_cast<const float*>(data)[i];
  if (dtype == MB_F64) return static_cast<const double*>(data)[i];
  if (dtype == MB_I32) return static_cast<const int32_t*>(data)[i];
  return bf16_to_f32(static_cast<const uint16_t*>(data)[i]);
}

std::vector<char> contribution(int dtype, int rank, int64_t n) {
  std::vector<char> data(n * dtype_size(dtype));
  for (int64_t i = 0; i < n; i++) put(dtype, data.data(), i, value(dtype, rank, i));
  return data;
}

// Elements [from, from + n) of the reduction over ranks 0 .. size-1, in rank order.
std::vector<char> reduced(int dtype, int op, int size, int64_t from, int64_t n, int64_t total) {
  std::vector<char> result(n * dtype_size(dtype));
  std::vector<std::vector<char>> all;
  for (int r = 0; r < size; r++) all.push_back(contribution(dtype, r, total));
  for (int64_t i = 0; i < n; i++) {
    double sum = get(dtype, all[0].data(), from + i);
    for (int r = 1; r < size; r++) {
      const double x = get(dtype, all[r].data(), from + i);
      if (op == MB_MAX)
        sum = std::max(sum, x);
      else if (dtype == MB_F64)
        sum += x;
      else if (dtype == MB_I32)
        sum = static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(sum) + static_cast<int64_t>(x)));
      else
        sum = static_cast<float>(sum) + static_cast<float>(x);
    }
    put(dtype, result.data(), i, sum);
  }
  return result;
}

void check_all_reduce(mb_comm* comm, int size, int rank, int dtype, int op, int64_t n) {
  const std::vector<char> in = contribution(dtype, rank, n), expected = reduced(dtype, op, size, 0, n, n);
  std::vector<char> out(in.size()), in_place = in;
  const mb_buf from = buffer(in, dtype), to = buffer(out, dtype), both = buffer(in_place, dtype);
  CHECK_OK(table->all_reduce(comm, 0, &from, &to, n, op));
  CHECK(out == expected);
  CHECK(in == contribution(dtype, rank, n));
  CHECK_OK(table->all_reduce(comm, 0, &both, &both, n, op));
  CHECK(in_place == expected);
}

void check_reduce_scatter(mb_comm* comm, int size, int rank, int dtype, int op, int64_t n) {
  const int64_t bytes = n * dtype_size(dtype);
  std::vector<char> in = contribution(dtype, rank, n * size), out(bytes);
  const std::vector<char> expected = reduced(dtype, op, size, rank * n, n, n * size);
  const mb_buf from = buffer(in, dtype), to = buffer(out, dtype);
  CHECK_OK(table->reduce_scatter(comm, 0, &from, &to, n, op));
  CHECK(out == expected);
  const mb_buf slice = buffer(in.data() + rank * bytes, bytes, dtype);
  CHECK_OK(table->reduce_scatter(comm, 0, &from, &slice, n, op));
  CHECK(!bytes || !memcmp(in.data() + rank * bytes, expected.data(), bytes));
}

void check_all_gather(mb_comm* comm, int size, int rank, int dtype, int64_t n) {
  const int64_t bytes = n * dtype_size(dtype);
  const std::vector<char> in = contribution(dtype, rank, n);
  std::vector<char> expected, out(bytes * size), in_place(bytes * size);
  for (int r = 0; r < size; r++) {
    const std::vector<char> part = contribution(dtype, r, n);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const mb_buf from = buffer(in, dtype), to = buffer(out, dtype);
  CHECK_OK(table->all_gather(comm, 0, &from, &to, n));
  CHECK(out == expected);
  std::copy(in.begin(), in.end(), in_place.begin() + rank * bytes);
  const mb_buf slice = buffer(in_place.data() + rank * bytes, bytes, dtype), whole = buffer(in_place, dtype);
  CHECK_OK(table->all_gather(comm, 0, &slice, &whole, n));
  CHECK(in_place == expected);
}

void check_broadcast(mb_comm* comm, int size, int rank, int dtype, int64_t n) {
  for (int root : {0, size - 1}) {
    std::vector<char> data = contribution(dtype, rank, n);
    const mb_buf buf = buffer(data, dtype);
    CHECK_OK(table->broadcast(comm, 0, &buf, n, root));
    CHECK(data == contribution(dtype, root, n));
  }
}

template <int kSize>
int matches_reference() {
  return run(kSize, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "all", first_ranks(kSize), rank);
    for (int64_t n : {0, 1, 7, 2048, 2049, 100003}) {
      for (int dtype : kDtypes) {
        if (n > 10000 && kSize > 3 && dtype != MB_F32) continue;  // time, not coverage: the path is the same
        for (int op : {MB_SUM, MB_MAX}) {
          check_all_reduce(comm, kSize, rank, dtype, op, n);
          check_reduce_scatter(comm, kSize, rank, dtype, op, n);
        }
        check_all_gather(comm, kSize, rank, dtype, n);
        check_broadcast(comm, kSize, rank, dtype, n);
      }
    }
    CHECK_OK(table->barrier(comm, 0));
    table->destroy(comm);
  });
}

int million_elements() {
  return run(3, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "all", first_ranks(3), rank);
    check_all_reduce(comm, 3, rank, MB_F32, MB_SUM, 1000003);
    check_all_gather(comm, 3, rank, MB_BF16, 1000003);
    check_broadcast(comm, 3, rank, MB_F32, 1000003);
    table->destroy(comm);
  });
}

// A tp x dp x pp grid of 8 ranks, with all its groups alive at once and used in turns.
int groups_at_once() {
  return run(8, [](int rank, Board& board) {
    struct Group {
      mb_comm* comm;
      std::vector<int32_t> ranks;
    };
    std::vector<Group> groups;
    auto add = [&](int slot, const char* name, std::vector<int32_t> ranks) {
      groups.push_back({join(board, slot, name, ranks, rank), ranks});
    };
    const int tp = rank & 1, dp = rank >> 1 & 1, pp = rank >> 2;
    add(0, "all", first_ranks(8));
    add(1 + dp + 2 * pp, "tp", {rank - tp, rank - tp + 1});
    add(5 + tp + 2 * pp, "dp", {tp + 4 * pp, tp + 2 + 4 * pp});
    add(9 + tp + 2 * dp, "pp", {tp + 2 * dp, tp + 2 * dp + 4});
    add(13 + pp, "stage", {4 * pp, 4 * pp + 1, 4 * pp + 2, 4 * pp + 3});
    if (rank % 3 == 0) add(15, "odd", {0, 3, 6});
    add(16 + rank, "self", {rank});
    for (int step = 0; step < 20; step++) {
      for (const Group& group : groups) {
        for (int64_t n : {1, 5000}) {
          std::vector<float> x(n, static_cast<float>(rank + step));
          const mb_buf buf = buffer(x, MB_F32);
          CHECK_OK(table->all_reduce(group.comm, 0, &buf, &buf, n, MB_SUM));
          float sum = 0;
          for (int r : group.ranks) sum += static_cast<float>(r + step);
          CHECK(x.front() == sum && x.back() == sum);
        }
      }
    }
    for (const Group& group : groups) table->destroy(group.comm);
  });
}

int single_rank() {
  return run(1, [](int, Board& board) {
    mb_comm* comm = join(board, 0, "self", {5}, 5);
    check_all_reduce(comm, 1, 0, MB_F32, MB_SUM, 1001);
    check_reduce_scatter(comm, 1, 0, MB_BF16, MB_SUM, 1001);
    check_all_gather(comm, 1, 0, MB_F64, 1001);
    check_broadcast(comm, 1, 0, MB_I32, 1001);
    CHECK_OK(table->barrier(comm, 0));
    CHECK_OK(table->check(comm));
    table->abort(comm);
    CHECK(table->check(comm) == MB_ERR_PEER);
    CHECK(table->barrier(comm, 0) == MB_ERR_PEER);
    CHECK_ERROR("rank 5 aborted (group self [5])");
    table->destroy(comm);
  });
}

int sixty_four_ranks() {
  return run(64, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "wide", first_ranks(64), rank);
    for (int64_t n : {1, 3000, 70000}) {
      std::vector<int32_t> x(n, rank + 1);
      const mb_buf buf = buffer(x, MB_I32);
      CHECK_OK(table->all_reduce(comm, 0, &buf, &buf, n, MB_SUM));
      CHECK(x.front() == 64 * 65 / 2 && x.back() == 64 * 65 / 2);
    }
    table->destroy(comm);
  });
}

int nan_is_passed_on() {
  return run(3, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "all", first_ranks(3), rank);
    for (int who = 0; who < 3; who++) {
      float x = rank == who ? __builtin_nanf("") : static_cast<float>(rank);
      const mb_buf buf = buffer(&x, 4, MB_F32);
      CHECK_OK(table->all_reduce(comm, 0, &buf, &buf, 1, MB_MAX));
      CHECK(x != x);
    }
    table->destroy(comm);
  });
}

// More ranks than cores: those who wait must let the others run.
int crowded() {
  return run(8, [](int rank, Board& board) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(0, &cores);
    CPU_SET(1, &cores);
    sched_setaffinity(0, sizeof cores, &cores);  // fails where these are not ours; then there are few cores anyway
    mb_comm* comm = join(board, 0, "all", first_ranks(8), rank);
    std::vector<float> x(1);
    const mb_buf buf = buffer(x, MB_F32);
    const auto sum = [&] { return table->all_reduce(comm, 0, &buf, &buf, 1, MB_SUM); };
    CHECK_OK(sum());
    const double start = seconds();
    for (int i = 0; i < 200; i++) CHECK_OK(sum());
    const double each = (seconds() - start) / 200;
    if (rank == 0) printf("     8 ranks on 2 cores: %.0f us an all_reduce of 4 bytes\n", each * 1e6);
    CHECK(each < 0.05);
    table->destroy(comm);
  });
}

}  // namespace

std::vector<Test> collective_tests() {
  return {{"collectives of 2 ranks match the reference", matches_reference<2>, kBoth},
          {"collectives of 3 ranks match the reference", matches_reference<3>, kBoth},
          {"collectives of 4 ranks match the reference", matches_reference<4>, kBoth},
          {"collectives of 8 ranks match the reference", matches_reference<8>, kBoth},
          {"collectives of 1000003 elements", million_elements, kBoth},
          {"collectives on all groups of a grid by turns", groups_at_once, kBoth},
          {"collectives of one rank", single_rank, kBoth},
          {"collectives of 64 ranks", sixty_four_ranks, kBoth},
          {"collectives: max passes NaN on", nan_is_passed_on, kBoth},
          {"crowded: 8 ranks on 2 cores", crowded}};
}

}  // namespace mb::shm_test
