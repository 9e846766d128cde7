// mbridge_shm_tests --bench: median and range of the time of a collective, on rank 0, by group and message size.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "comm/table.h"
#include "core/host.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();

template <typename Call>
void measure(const char* what, int size, int rank, int64_t bytes, Call call) {
  std::vector<double> times;
  const int repeats = bytes > 1 << 20 ? 20 : 500;
  for (int i = 0; i < repeats + 5; i++) {
    const double start = seconds();
    call();
    if (i >= 5) times.push_back((seconds() - start) * 1e6);
  }
  std::sort(times.begin(), times.end());
  if (rank == 0) {
    printf("%-15s %2d ranks %9lld bytes: median %9.1f us (10 %% %.1f, 90 %% %.1f)\n", what, size,
           static_cast<long long>(bytes), times[times.size() / 2], times[times.size() / 10],
           times[times.size() * 9 / 10]);
    fflush(stdout);
  }
}

}  // namespace

int bench() {
  printf("%s, %d cores\n", cpu_model().c_str(), usable_cores());
  int failures = 0;
  for (int size : {2, 4, 8}) {
    failures += run(size, [size](int rank, Board& board) {
      double start = seconds();
      mb_comm* comm = join(board, 0, "bench", first_ranks(size), rank);
      if (rank == 0) printf("%-15s %2d ranks: %.2f ms\n", "create", size, (seconds() - start) * 1e3);
      measure("barrier", size, rank, 0, [&] { CHECK_OK(table->barrier(comm, 0)); });
      for (int64_t bytes : {4, 4096, 65536, 1 << 20, 4 << 20, 32 << 20}) {
        std::vector<char> a(bytes), b(bytes);
        const mb_buf x = buffer(a, MB_F32), y = buffer(b, MB_F32);
        const int64_t n = bytes / 4, part = n / size;
        const mb_buf slice = buffer(a.data() + rank * part * 4, part * 4, MB_F32);
        measure("all_reduce", size, rank, bytes, [&] { CHECK_OK(table->all_reduce(comm, 0, &x, &x, n, MB_SUM)); });
        measure("reduce_scatter", size, rank, bytes,
                [&] { CHECK_OK(table->reduce_scatter(comm, 0, &x, &slice, part, MB_SUM)); });
        measure("all_gather", size, rank, bytes, [&] { CHECK_OK(table->all_gather(comm, 0, &slice, &x, part)); });
        measure("broadcast", size, rank, bytes, [&] { CHECK_OK(table->broadcast(comm, 0, &x, n, 0)); });
        measure("send, receive", size, rank, bytes, [&] {
          const mb_p2p ops[] = {{x, (rank + 1) % size, 1}, {y, (rank + size - 1) % size, 0}};
          CHECK_OK(table->p2p(comm, 0, ops, 2));
        });
      }
      table->destroy(comm);
    });
  }
  return failures ? 1 : 0;
}

}  // namespace mb::shm_test
