// A communicator over TCP, for groups of the CPU that span nodes: a connection a pair of members, every call made of
// messages between them. Reductions gather what all contribute and add it up here, in the order of the ranks as over
// shared memory, so that the bits are the same. Simple and exact; for rehearsals, not for speed.
#pragma once
#include <stdint.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/tcp/join.h"

namespace mb::tcp {

using comm::Call;
using comm::Communicator;
using comm::Joining;

class Comm : public Communicator {
 public:
  // Joins the group and returns once every member has; `out` is set on success only.
  static int create(const Joining& who, Communicator** out);
  ~Comm() override;
  void abort() override;
  int check() override;

 private:
  Comm(const Joining& who, const std::vector<int>& sockets);
  static constexpr uint8_t kSending = 1, kReceiving = 2;

  // Before each message.
  struct Frame {
    Call call;
    int64_t bytes;
  };
  struct Peer {
    int fd;
    Frame out, in;
    size_t out_at = 0, in_at = 0;  // bytes of the frame that have gone, or come
    uint8_t turn = 0;              // kSending | kReceiving: what this call waits for
    bool in_message = false;       // a message to it is not whole yet
    int cut = 0;                   // errno since when nothing can be sent to it; what it said before can be read
  };

  // ---- Failures
  bool record(int code, const std::string& text);  // whether it is the first
  int broken_error();
  int break_with(int code, const std::string& text) override;
  int lost(int peer, int error);
  bool said_why(int peer);     // of one whose connection has ended: whether its last words, behind its data, are why
  int hear_failure(int peer);  // of a peer that tells why it failed
  int last_words(int peer);    // of one that takes no more: why, if it says so
  int time_out(int64_t waited_ns);

  // ---- Collectives
  int begin(Op op, int dtype, int argument, int64_t n) override;
  int end() override { return MB_OK; }
  int move_all_reduce(int dtype, int op, const char* from, char* to, int64_t n) override;
  int move_reduce_scatter(int dtype, int op, const char* from, char* to, int64_t n) override;
  int move_all_gather(const char* from, char* to, int64_t bytes) override;
  int move_broadcast(char* data, int64_t bytes, int root) override;
  int meet() override { return move_broadcast(nullptr, 0, 0); }
  // What every other member sends, and receives; empty parts too, so that all calls are compared.
  void add(const char* data, int64_t bytes, int peer, bool send);
  int pass();

  // ---- Point to point
  int exchange(Op op, const mb_p2p* ops, int count) override;
  int run(const mb_p2p* ops, int count);
  int progress(bool* moved, bool* finished);
  int send_some(Transfer& t, bool* moved);
  int receive_some(Transfer& t, bool* moved);
  int sleep();

  std::vector<Peer> peers_;
  Call call_{};
  std::vector<mb_p2p> list_;   // of the current collective
  std::vector<char> scratch_;  // what others contribute to it
  std::mutex mutex_;           // of the failure, which a watching thread may record and read
  std::atomic<bool> broken_{false};
  int code_ = MB_OK;
  std::string text_;
};

}  // namespace mb::tcp
