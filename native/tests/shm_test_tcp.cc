// What only groups over TCP have: keys, strangers, and members that are waited for.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/table.h"
#include "comm/tcp/hmac.h"
#include "tests/shm_harness.h"

namespace mb::shm_test {
namespace {

const mb_comm_table* const table = mb_host_comm_table();

std::string hex(const tcp::Digest& digest) {
  std::string text;
  for (const uint8_t byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

// FIPS 180-4's example, and what another implementation gives for more than a block.
int known_digests() {
  return run(1, [](int, Board&) {
    CHECK(hex(tcp::sha256(reinterpret_cast<const uint8_t*>("abc"), 3)) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    uint8_t key[32];
    for (int i = 0; i < 32; i++) key[i] = static_cast<uint8_t>(i);
    std::string text;
    for (int i = 0; i < 5; i++) text += "what do ya want for nothing?";
    CHECK(hex(tcp::hmac(key, reinterpret_cast<const uint8_t*>(text.data()), text.size())) ==
          "b17d1846046142dae6ef32b3adfa58ab154fdcbaba5219fa33b9b1768293fb4d");
  });
}

// One that has another key is refused by itself, and is missing for the others.
int other_key() {
  return run(3, [](int rank, Board& board) {
    if (rank == 2) {
      while (!board.id_ready[0].load()) sleep_s(0.001);
      uint8_t id[128];
      memcpy(id, board.ids[0], sizeof id);
      id[127] ^= 1;
      const int32_t ranks[] = {0, 1, 2};
      mb_comm* comm;
      CHECK(table->create(nullptr, id, "dp", 2, 3, ranks, 5, &comm) == MB_ERR_PEER);
      CHECK_ERROR("rank 0 at 127.0.0.1:");
      CHECK_ERROR("does not know the key of this run (group dp [0,1,2], in create)");
      return;
    }
    int status;
    join(board, 0, "dp", first_ranks(3), rank, 0.5, &status);
    CHECK(status == MB_ERR_TIMEOUT);
    CHECK_ERROR("rank 0 has waited 0.5 s for rank 2 (group dp [0,1,2], in create)");
  });
}

// Connections that say nothing, nonsense, or what was heard before, neither end the joining nor hold it up.
int strangers() {
  return run(3, [](int rank, Board& board) {
    if (rank == 2) {
      while (!board.id_ready[0].load()) sleep_s(0.001);
      uint16_t port = 0;
      memcpy(&port, board.ids[0] + 24 + 46, sizeof port);  // of the id's place
      for (int i = 0; i < 100; i++) {
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_port = htons(port);
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        CHECK_OK(connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name));
        const std::string said(static_cast<size_t>(i), 'x');
        if (i % 2) (void)!send(fd, said.data(), said.size(), MSG_NOSIGNAL);
      }
    }
    const double start = seconds();
    mb_comm* comm = join(board, 0, "dp", first_ranks(3), rank);
    CHECK_OK(table->barrier(comm, 0));
    CHECK(seconds() - start < kSoon);
    table->destroy(comm);
  });
}

// Rank 0 waits for rank 2, which ends without a word. Why is what rank 1 said before, behind data that rank 0 has not
// read; where that ended without a word too, both are named.
int last_words_of_another() {
  return run(3, [](int rank, Board& board) {
    for (int slot = 0; slot < 2; slot++) {
      const bool says_why = slot == 0;
      mb_comm* comm = join(board, slot, "dp", first_ranks(3), rank);
      CHECK_OK(table->barrier(comm, 0));
      std::vector<float> x(100);
      const mb_buf buf = buffer(x, MB_F32);
      if (rank == 1) {
        const mb_p2p send{buf, 0, 1};
        CHECK_OK(table->p2p(comm, 0, &send, 1));
        if (says_why) {
          CHECK(table->all_reduce(comm, 0, &buf, &buf, 101, MB_SUM) == MB_ERR_ARGUMENT);
        } else {
          table->abort(comm);
        }
        board.flag[slot].store(1);
      } else if (rank == 2) {
        while (board.flag[slot].load() < 1) sleep_s(0.001);
        table->abort(comm);
        board.flag[slot].store(2);
      } else {
        while (board.flag[slot].load() < 2) sleep_s(0.001);
        const mb_p2p receive{buf, 2, 0};
        const int status = table->p2p(comm, 0, &receive, 1);
        CHECK(status == (says_why ? MB_ERR_ARGUMENT : MB_ERR_PEER));
        CHECK_ERROR(says_why ? "rank 1: " : "rank 1, rank 2 were lost: their connections ended");
        board.flag[slot].store(3);
      }
      // None closes before rank 0 has looked: what it has not read would be taken back.
      while (board.flag[slot].load() < 3) sleep_s(0.001);
      table->destroy(comm);
    }
  });
}

}  // namespace

std::vector<Test> tcp_tests() {
  return {{"tcp: known digests", known_digests, kTcp},
          {"tcp: a member with another key", other_key, kTcp},
          {"tcp: strangers", strangers, kTcp},
          {"tcp: the last words of another member", last_words_of_another, kTcp}};
}

}  // namespace mb::shm_test
