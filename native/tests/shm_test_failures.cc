// What must end in an error that names the rank: mismatched calls, late, dead, leaving and aborting members.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <thread>

#include "comm/table.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();

int sum(mb_comm* comm, std::vector<float>& x) {
  const mb_buf buf = buffer(x, MB_F32);
  return table->all_reduce(comm, 0, &buf, &buf, static_cast<int64_t>(x.size()), MB_SUM);
}

// Exchanges x with the neighbours on both sides.
int exchange(mb_comm* comm, int rank, int size, std::vector<float>& x, std::vector<float>& y) {
  const mb_p2p ops[] = {{buffer(x, MB_F32), (rank + 1) % size, 1}, {buffer(y, MB_F32), (rank + size - 1) % size, 0}};
  return table->p2p(comm, 0, ops, 2);
}

int call(mb_comm* comm, int rank, int size, const char* kind, std::vector<float>& x, std::vector<float>& y) {
  if (kind[0] == 'a') return sum(comm, x);
  if (kind[0] == 'p') return exchange(comm, rank, size, x, y);
  return table->barrier(comm, 0);
}

// Rank 2 of 3 calls something else than the others: all fail, and the text names both calls.
int mismatches() {
  struct Case {
    const char* difference;
    int dtype, op, count, other;
    const char* text;
  };
  static const Case kCases[] = {
      {"count", MB_F32, MB_SUM, 99, 0, "all_reduce of 99 f32, sum"},
      {"dtype", MB_I32, MB_SUM, 100, 0, "all_reduce of 100 i32, sum"},
      {"reduce op", MB_F32, MB_MAX, 100, 0, "all_reduce of 100 f32, max"},
      {"collective", MB_F32, MB_SUM, 100, 1, "all_gather of 100 f32"},
      {"barrier", MB_F32, MB_SUM, 100, 2, "rank 12 called barrier"},
      {"broadcast", MB_F32, MB_SUM, 100, 3, "rank 12 called broadcast of 100 f32 from rank 11"},
  };
  return run(3, [](int rank, Board& board) {
    int slot = 0;
    for (const Case& c : kCases) {
      mb_comm* comm = join(board, slot++, "tp", {10, 11, 12}, 10 + rank);
      std::vector<float> x(100), y(300);
      CHECK_OK(sum(comm, x));
      const mb_buf in = buffer(x, rank == 2 ? c.dtype : MB_F32), out = buffer(y, MB_F32);
      int status;
      if (rank != 2)
        status = table->all_reduce(comm, 0, &in, &in, 100, MB_SUM);
      else if (c.other == 0)
        status = table->all_reduce(comm, 0, &in, &in, c.count, c.op);
      else if (c.other == 1)
        status = table->all_gather(comm, 0, &in, &out, 100);
      else if (c.other == 2)
        status = table->barrier(comm, 0);
      else
        status = table->broadcast(comm, 0, &in, 100, 1);
      CHECK(status == MB_ERR_MISMATCH);
      CHECK_ERROR(c.text);
      CHECK_ERROR("all_reduce of 100 f32, sum");
      CHECK_ERROR("(group tp [10,11,12])");
      CHECK(table->check(comm) == MB_ERR_MISMATCH);
      CHECK(sum(comm, x) == MB_ERR_MISMATCH);
      table->destroy(comm);
    }
  });
}

// A call that is wrong by itself fails at once at the peers too, instead of leaving them to wait.
int bad_arguments() {
  return run(2, [](int rank, Board& board) {
    for (int test = 0; test < 4; test++) {
      mb_comm* comm = join(board, test, "tp", {0, 1}, rank);
      std::vector<float> x(100);
      mb_buf buf = buffer(x, MB_F32), part = buffer(x.data() + 1, 396, MB_F32);
      int status;
      if (rank == 0)
        status = sum(comm, x);
      else if (test == 0)
        status = table->all_reduce(comm, 0, &buf, &buf, 101, MB_SUM);
      else if (test == 1)
        status = table->all_reduce(comm, 0, &buf, &part, 99, MB_SUM);
      else if (test == 2)
        status = table->broadcast(comm, 0, &buf, 100, 2);
      else {
        buf.dtype = MB_U8;
        status = table->all_reduce(comm, 0, &buf, &buf, 100, MB_SUM);
      }
      CHECK(status == (test == 3 ? MB_ERR_UNSUPPORTED : MB_ERR_ARGUMENT));
      CHECK_ERROR("rank 1: ");
      table->destroy(comm);
    }
  });
}

int create_mismatch() {
  return run(2, [](int rank, Board& board) {
    int status;
    join(board, 0, rank == 0 ? "tp" : "dp", {0, 1}, rank, 5, &status);
    CHECK(status == MB_ERR_ARGUMENT);
    CHECK_ERROR("rank 1 joins group dp [0,1], but rank 0 made group tp [0,1]");
    const std::vector<int32_t> three = {0, 1, 2}, two = {0, 1};
    join(board, 1, "tp", rank == 0 ? three : two, rank, 5, &status);
    CHECK(status == MB_ERR_ARGUMENT);
    CHECK_ERROR("rank 1 joins group tp [0,1], but rank 0 made group tp [0,1,2]");
    // An id serves once.
    mb_comm* comm = join(board, 2, "pp", {0, 1}, rank);
    CHECK_OK(table->barrier(comm, 0));
    const int32_t ranks[] = {0, 1};
    mb_comm* again;
    CHECK(table->create(nullptr, board.ids[2], "pp", rank, 2, ranks, 1, &again) == MB_ERR_PEER);
    CHECK_ERROR("or this id was used before");
    meet(board, 2);
  });
}

int time_outs() {
  return run(3, [](int rank, Board& board) {
    const int self = rank == 2 ? 5 : 2 * rank;
    const char* kinds[] = {"all_reduce", "p2p", "barrier"};
    // More than a ring, or the system for a connection, keeps for a receiver.
    const size_t elements = over_tcp ? 8'000'000 : 1'000'000;
    std::vector<float> x(elements), y(elements);
    for (int k = 0; k < 3; k++) {
      mb_comm* comm = join(board, k, "tp", {0, 2, 5}, self, 0.3);
      // Rank 1 comes when the others have given up.
      while (rank == 1 && board.number[k].load() < 2) sleep_s(0.001);
      const double start = seconds();
      const int status = call(comm, rank, 3, kinds[k], x, y);
      const double waited = seconds() - start;
      // Over TCP it hears no reason of those that gave up in a message, and one that they had sent whole is there.
      const bool unheard = over_tcp && rank == 1 && status != MB_ERR_TIMEOUT;
      CHECK(status == MB_ERR_TIMEOUT || unheard);
      const bool first = told("rank " + std::to_string(self) + " has waited");  // or hears it from another
      CHECK(waited < kSoon && (!first || waited > 0.29));
      board.number[k].fetch_add(1);
      if (!unheard) {
        CHECK_ERROR(std::string(kinds[k]) + " timed out: rank ");
        CHECK_ERROR(over_tcp ? " s for rank 2 (group" : " s for rank 2 (in no call)");
        CHECK_ERROR("(group tp [0,2,5], in ");
      }
      table->destroy(comm);
    }
    if (rank == 1) return;
    int status;
    join(board, 3, "dp", {0, 2, 5}, self, 0.2, &status);
    CHECK(status == MB_ERR_TIMEOUT);
    CHECK_ERROR("for rank 2 (group dp [0,2,5], in create)");
  });
}

// The victim is killed at some moment of a busy loop of calls; the others must name it.
template <int kSize>
int killed(const char* kind, int64_t elements, uint64_t seed) {
  const int victim = static_cast<int>(hash(seed) % kSize);
  return run(kSize,
             [=](int rank, Board& board) {
               mb_comm* comm = join(board, 0, "tp", first_ranks(kSize), rank);
               std::vector<float> x(elements, 1), y(elements);
               CHECK_OK(table->barrier(comm, 0));
               std::thread killer;
               if (rank == victim) {
                 killer = std::thread([&] {
                   sleep_s(static_cast<double>(hash(seed + 1) % 20000) * 1e-6);
                   board.number[0].store(static_cast<int64_t>(seconds() * 1e6));
                   kill(getpid(), SIGKILL);
                 });
               }
               int status;
               while ((status = call(comm, rank, kSize, kind, x, y)) == MB_OK) std::fill(x.begin(), x.end(), 1.0f);
               CHECK(status == MB_ERR_PEER);
               CHECK_ERROR("rank " + std::to_string(victim) +
                           (over_tcp ? "" : " died (pid " + std::to_string(board.pids[victim])));
               if (over_tcp) CHECK_ERROR(" lost: ");
               CHECK_ERROR(std::string("in ") + kind);
               CHECK(seconds() - static_cast<double>(board.number[0].load()) * 1e-6 < kSoon);
               table->destroy(comm);
             },
             {victim});
}

int killed_in_all_reduce() {
  return killed<2>("all_reduce", 300000, 1) + killed<4>("all_reduce", 300000, 2) + killed<4>("all_reduce", 1, 3) +
         killed<8>("all_reduce", 50000, 4) + killed<3>("all_reduce", 300000, 5);
}
int killed_in_p2p() { return killed<2>("p2p", 300000, 6) + killed<4>("p2p", 10, 7) + killed<4>("p2p", 300000, 8); }
int killed_in_barrier() {
  return killed<2>("barrier", 1, 9) + killed<4>("barrier", 1, 10) + killed<8>("barrier", 1, 11);
}

int killed_in_create() {
  int failures = 0;
  for (uint64_t seed = 0; seed < 8; seed++) {
    const int victim = static_cast<int>(seed % 3);
    failures += run(4,
                    [=](int rank, Board& board) {
                      std::thread killer;
                      if (rank == victim) {
                        killer = std::thread([&] {
                          while (!board.id_ready[0].load()) sleep_s(1e-5);
                          sleep_s(static_cast<double>(hash(seed) % 1500) * 1e-6);
                          board.number[0].store(1);
                          kill(getpid(), SIGKILL);
                        });
                      }
                      while (rank == 3 && board.number[0].load() == 0) sleep_s(1e-3);
                      if (rank == 3) sleep_s(0.1);  // unfinished, until the victim has died
                      int status;
                      const double start = seconds();
                      join(board, 0, "tp", first_ranks(4), rank, 5, &status);
                      CHECK(status == MB_ERR_PEER || status == MB_ERR_TIMEOUT);
                      CHECK_ERROR("rank ");  // rank 0 may have told no more than that it ended
                      if (!over_tcp && !told("gave up making") && (rank != 3 || victim == 0))
                        CHECK_ERROR("rank " + std::to_string(victim));
                      CHECK(seconds() - start < kSoon);
                      if (rank == victim) sleep_s(10);
                      meet(board, 3);  // all know
                    },
                    {victim});
  }
  return failures;
}

enum class Way { kExit, kDestroy, kThreadEnds };

// Ending after the last collective disturbs nobody; only what needs the one that went fails.
template <Way kWay>
int leaving() {
  return run(3, [](int rank, Board& board) {
    std::atomic<bool> thread_ended{false};
    mb_comm* all = join(board, 0, "all", first_ranks(3), rank, 20, nullptr, &thread_ended);
    mb_comm* pair = rank < 2 ? join(board, 1, "pair", first_ranks(2), rank) : nullptr;
    std::vector<float> x(1000, 1), y(1000);
    CHECK_OK(sum(all, x));
    const mb_buf out = buffer(x, MB_F32), in = buffer(y, MB_F32);
    if (rank == 2) {
      const mb_p2p last = {out, 0, 1};
      CHECK_OK(table->p2p(all, 0, &last, 1));
      if (kWay != Way::kExit) {
        thread_ended = kWay == Way::kThreadEnds;
        table->destroy(all);
        board.flag[0].store(1);
        sleep_s(0.2);
      }
      return;
    }
    if (kWay != Way::kExit) {
      while (!board.flag[0].load()) sleep_s(0.001);
    } else {
      sleep_s(0.05);
    }
    for (int i = 0; i < 10; i++) CHECK_OK(table->barrier(pair, 0));
    CHECK_OK(table->check(all));
    // What it had sent is still there, and the two that are left can still exchange.
    const mb_p2p first[] = {{in, 1, 0}, {in, 2, 0}}, second = {out, 0, 1};
    CHECK_OK(table->p2p(all, 0, rank == 0 ? first : &second, rank == 0 ? 2 : 1));
    if (rank == 0) CHECK(x == y);
    CHECK_OK(table->barrier(pair, 0));
    CHECK(sum(all, x) == MB_ERR_PEER);
    CHECK_ERROR(over_tcp                   ? "rank 2 was lost: its connection ended (group all [0,1,2], in all_reduce)"
                : kWay == Way::kDestroy    ? "rank 2 destroyed its communicator (group all [0,1,2], in all_reduce)"
                : kWay == Way::kThreadEnds ? "rank 2 died (its thread ended) (group all [0,1,2], in all_reduce)"
                                           : "rank 2 died (pid ");
    meet(board, 2);
    table->destroy(all);
    table->destroy(pair);
  });
}

// One whose thread ends stops waiting for the rank that never comes, and those that wait with it learn of it.
int thread_ends_in_create() {
  return run(2, [](int rank, Board& board) {
    std::atomic<bool> thread_ended{false};
    std::thread ender;
    if (rank == 0) {
      ender = std::thread([&] {
        sleep_s(0.2);
        thread_ended = true;
      });
    }
    const double start = seconds();
    int status;
    join(board, 0, "tp", first_ranks(3), rank, 20, &status, &thread_ended);
    CHECK(status == MB_ERR_PEER);
    // Rank 1 may come when there is nothing left to join.
    CHECK_ERROR(over_tcp    ? "the thread that joins has ended"
                : rank == 0 ? "the thread of rank 0 has ended"
                            : "rank 0 ");
    CHECK(seconds() - start < kSoon);
    if (ender.joinable()) ender.join();
    meet(board, 2);
  });
}

int aborts() {
  return run(3, [](int rank, Board& board) {
    for (int k = 0; k < 3; k++) {
      mb_comm* comm = join(board, k, "dp", first_ranks(3), rank);
      std::vector<float> x(1000000), y(1000000);
      std::thread aborter;
      if (rank == 1) {
        aborter = std::thread([&] {
          sleep_s(0.05);
          table->abort(comm);
        });
      }
      // Rank 0 never comes on its own; it learns of the abort from check.
      if (rank == 0) {
        while (table->check(comm) == MB_OK) sleep_s(0.001);
        CHECK_ERROR("rank 1 aborted (group dp [0,1,2])");
      } else {
        const double start = seconds();
        CHECK(call(comm, rank, 3, k == 0 ? "all_reduce" : k == 1 ? "p2p" : "barrier", x, y) == MB_ERR_PEER);
        CHECK(seconds() - start < kSoon);
      }
      CHECK_ERROR("rank 1 aborted (group dp [0,1,2])");
      CHECK(sum(comm, x) == MB_ERR_PEER);
      if (aborter.joinable()) aborter.join();
      table->destroy(comm);
    }
  });
}

}  // namespace

std::vector<Test> failure_tests() {
  return {{"failure: calls that differ", mismatches, kBoth},
          {"failure: bad arguments reach the peers", bad_arguments, kBoth},
          {"failure: groups that differ", create_mismatch},
          {"failure: time-outs name who is missing", time_outs, kBoth},
          {"failure: killed in all_reduce", killed_in_all_reduce, kBoth},
          {"failure: killed in p2p", killed_in_p2p, kBoth},
          {"failure: killed in barrier", killed_in_barrier, kBoth},
          {"failure: killed in create", killed_in_create, kBoth},
          {"failure: exit after the last call", leaving<Way::kExit>, kBoth},
          {"failure: destroy after the last call", leaving<Way::kDestroy>, kBoth},
          {"failure: a thread ends after the last call", leaving<Way::kThreadEnds>, kBoth},
          {"failure: a thread ends in create", thread_ends_in_create, kBoth},
          {"failure: abort from another thread", aborts}};
}

}  // namespace mb::shm_test
