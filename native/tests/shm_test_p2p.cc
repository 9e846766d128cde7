// Sends and receives: rings, random groups of messages, sizes around the ring's, order.
#include <string.h>

#include "comm/table.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();

std::vector<uint8_t> message(uint64_t key, int64_t bytes) {
  std::vector<uint8_t> data(bytes);
  for (int64_t i = 0; i < bytes; i++)
    data[i] = static_cast<uint8_t>(hash(key) >> (i % 57 & 31)) ^ static_cast<uint8_t>(i);
  return data;
}

mb_p2p send_to(int peer, const std::vector<uint8_t>& data) { return {buffer(data, MB_U8), peer, 1}; }
mb_p2p receive_from(int peer, const std::vector<uint8_t>& data) { return {buffer(data, MB_U8), peer, 0}; }

// Each sends to its neighbour before it receives: more than a ring holds, so only progress on both together ends.
template <int kSize>
int neighbours() {
  return run(kSize, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "ring", first_ranks(kSize), rank);
    for (int64_t bytes : {0, 1, 63, 64, 65, 4096, 262080, 262144, 3000001}) {
      for (int step : {1, kSize - 1}) {
        const int next = (rank + step) % kSize, previous = (rank + kSize - step) % kSize;
        const std::vector<uint8_t> out = message(rank, bytes);
        std::vector<uint8_t> in(bytes);
        const mb_p2p ops[] = {send_to(next, out), receive_from(previous, in)};
        CHECK_OK(table->p2p(comm, 0, ops, 2));
        CHECK(in == message(previous, bytes));
      }
    }
    table->destroy(comm);
  });
}

// Forward and backward exchanges of neighbouring pipeline stages in one call, in opposite orders on the two sides.
int both_directions() {
  return run(4, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "pp", first_ranks(4), rank);
    for (int round = 0; round < 5; round++) {
      const int64_t bytes = 700000 + round;
      const std::vector<uint8_t> down = message(rank, bytes), up = message(100 + rank, bytes);
      std::vector<uint8_t> from_above(bytes), from_below(bytes);
      std::vector<mb_p2p> ops;
      if (rank < 3) ops.push_back(send_to(rank + 1, down));
      if (rank > 0) ops.push_back(receive_from(rank - 1, from_above));
      if (rank > 0) ops.push_back(send_to(rank - 1, up));
      if (rank < 3) ops.push_back(receive_from(rank + 1, from_below));
      if (rank % 2) std::swap(ops.front(), ops.back());
      CHECK_OK(table->p2p(comm, 0, ops.data(), static_cast<int>(ops.size())));
      if (rank > 0) CHECK(from_above == message(rank - 1, bytes));
      if (rank < 3) CHECK(from_below == message(101 + rank, bytes));
    }
    table->destroy(comm);
  });
}

// Every rank derives the same random list of messages and posts its part, self-messages included.
template <int kSize>
int random_groups() {
  return run(kSize, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "any", first_ranks(kSize), rank);
    uint64_t key = 0;
    for (int round = 0; round < 30; round++) {
      struct Message {
        uint64_t key;
        std::vector<uint8_t> data;
      };
      std::vector<Message> received, sent;
      const int count = static_cast<int>(hash(++key) % 40);
      received.reserve(count);
      sent.reserve(count);
      std::vector<mb_p2p> ops;
      for (int i = 0; i < count; i++) {
        const uint64_t h = hash(++key);
        const int from = static_cast<int>(h % kSize), to = static_cast<int>((h >> 8) % kSize);
        const int64_t bytes =
            (h >> 16 & 3) ? static_cast<int64_t>((h >> 20) % 3000) : static_cast<int64_t>((h >> 20) % 200000);
        if (from == rank) {
          sent.push_back({key, message(key, bytes)});
          ops.push_back(send_to(to, sent.back().data));
        }
        if (to == rank) {
          received.push_back({key, std::vector<uint8_t>(bytes)});
          ops.push_back(receive_from(from, received.back().data));
        }
      }
      CHECK_OK(table->p2p(comm, 0, ops.data(), static_cast<int>(ops.size())));
      for (const Message& m : received) CHECK(m.data == message(m.key, static_cast<int64_t>(m.data.size())));
    }
    table->destroy(comm);
  });
}

// A send that fits the ring ends before the receiver has come; a collective may lie between the two.
int buffered_send() {
  return run(2, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "pp", first_ranks(2), rank);
    const std::vector<uint8_t> out = message(7, 1000);
    std::vector<uint8_t> in(1000);
    const mb_p2p op = rank == 0 ? send_to(1, out) : receive_from(0, in);
    if (rank == 0) CHECK_OK(table->p2p(comm, 0, &op, 1));
    CHECK_OK(table->barrier(comm, 0));
    if (rank == 1) CHECK_OK(table->p2p(comm, 0, &op, 1));
    if (rank == 1) CHECK(in == out);
    table->destroy(comm);
  });
}

int size_mismatch() {
  return run(2, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "pp", {4, 6}, 4 + 2 * rank);
    const std::vector<uint8_t> out = message(7, 500000);
    std::vector<uint8_t> in(499999);
    const mb_p2p op = rank == 0 ? send_to(1, out) : receive_from(0, in);
    CHECK(table->p2p(comm, 0, &op, 1) == MB_ERR_MISMATCH);
    CHECK_ERROR("rank 4 sends 500000 bytes to rank 6, which expects 499999 (group pp [4,6], in p2p)");
    CHECK(table->barrier(comm, 0) == MB_ERR_MISMATCH);
    table->destroy(comm);
  });
}

int self_mismatch() {
  return run(1, [](int, Board& board) {
    const std::vector<uint8_t> data = message(7, 10);
    for (int test = 0; test < 3; test++) {
      mb_comm* comm = join(board, test, "self", {0}, 0);
      const mb_p2p ops[] = {test == 2 ? receive_from(0, data) : send_to(0, data),
                            receive_from(test == 0 ? 0 : 1, data)};
      CHECK(table->p2p(comm, 0, ops, test == 0 ? 2 : 1) == (test == 0 ? MB_OK : MB_ERR_ARGUMENT));
      table->destroy(comm);
    }
  });
}

// Elements that rank `from` sends `to` in a round: some of nothing, one more than a ring holds.
int64_t piece(int round, int from, int to) {
  const uint64_t x = hash(static_cast<uint64_t>(round * 10000 + from * 100 + to));
  return x % 5 == 0 ? 0 : x % 7 == 0 ? 300001 : static_cast<int64_t>(x % 1000);
}

// Pieces of every size, each at a place of its own, and gaps between them that stay as they were.
template <int kSize>
int all_to_all() {
  return run(kSize, [](int rank, Board& board) {
    mb_comm* comm = join(board, 0, "experts", first_ranks(kSize), rank);
    for (int round = 0; round < 8; round++) {
      int64_t counts[4][kSize], sent = 0, received = 3;
      for (int r = kSize - 1; r >= 0; r--) {  // not in the order of ranks
        counts[0][r] = piece(round, rank, r);
        counts[1][r] = sent;
        counts[2][r] = piece(round, r, rank);
        counts[3][r] = received;
        sent += counts[0][r] + 1;
        received += counts[2][r] + 2;
      }
      std::vector<int32_t> in(sent, -1), out(received, -2), expected(received, -2);
      for (int r = 0; r < kSize; r++) {
        for (int64_t i = 0; i < counts[0][r]; i++) in[counts[1][r] + i] = static_cast<int32_t>(rank * 1000 + r + i * 7);
        for (int64_t i = 0; i < counts[2][r]; i++)
          expected[counts[3][r] + i] = static_cast<int32_t>(r * 1000 + rank + i * 7);
      }
      const mb_buf from = buffer(in, MB_I32), to = buffer(out, MB_I32);
      CHECK_OK(table->all_to_all(comm, 0, &from, &to, counts[0], counts[1], counts[2], counts[3]));
      CHECK(out == expected);
    }
    table->destroy(comm);
  });
}

// Counts that two members do not agree on fail where they are expected, parts that lie outside at both ends.
int all_to_all_refusals() {
  return run(2, [](int rank, Board& board) {
    const std::vector<int32_t> in(8), out(8);
    const mb_buf from = buffer(in, MB_I32), to = buffer(out, MB_I32);
    struct Wrong {
      int64_t sends, at;
      const mb_buf* to;
      const char* text;
    };
    int slot = 0;
    for (const Wrong& wrong :
         {Wrong{3, 4, &to, "expects 16"}, Wrong{4, 5, &to, "sends 4 elements at 5 to member 1, of 8"},
          Wrong{4, 4, &from, "in and out overlap"}}) {
      mb_comm* comm = join(board, slot++, "experts", {0, 1}, rank);
      const int64_t send[] = {4, rank == 0 ? wrong.sends : 4}, send_at[] = {0, rank == 0 ? wrong.at : 4};
      const int64_t receive[] = {4, 4}, receive_at[] = {0, 4};
      const mb_buf* target = rank == 0 ? wrong.to : &to;
      const int status = table->all_to_all(comm, 0, &from, target, send, send_at, receive, receive_at);
      // Who sends too little cannot know it, and may be done before the other has looked.
      if (rank == 1 || wrong.sends != 3 || status != MB_OK) {
        CHECK(status != MB_OK);
        CHECK_ERROR(wrong.text);
        CHECK_ERROR("in all_to_all");
      }
      board.flag[slot].fetch_add(1);
      while (board.flag[slot].load() < 2) sleep_s(0.001);
      table->destroy(comm);
    }
    meet(board, 2);
  });
}

}  // namespace

std::vector<Test> p2p_tests() {
  return {{"p2p ring of 2, both ways", neighbours<2>, kBoth},
          {"p2p ring of 3, both ways", neighbours<3>, kBoth},
          {"p2p ring of 8, both ways", neighbours<8>, kBoth},
          {"p2p of pipeline neighbours in opposite orders", both_directions, kBoth},
          {"p2p random groups of 2 ranks", random_groups<2>, kBoth},
          {"p2p random groups of 5 ranks", random_groups<5>, kBoth},
          {"p2p random groups of 8 ranks", random_groups<8>, kBoth},
          {"p2p send that fits is buffered", buffered_send},
          {"p2p sizes that differ fail at both ends", size_mismatch},
          {"p2p with itself must match", self_mismatch, kBoth},
          {"p2p all-to-all of 1 rank", all_to_all<1>, kBoth},
          {"p2p all-to-all of 2 ranks", all_to_all<2>, kBoth},
          {"p2p all-to-all of 5 ranks", all_to_all<5>, kBoth},
          {"p2p all-to-all that does not agree", all_to_all_refusals, kBoth}};
}

}  // namespace mb::shm_test
