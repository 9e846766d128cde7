#include "comm/tcp/join.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "comm/tcp/hmac.h"
#include "comm/tcp/socket.h"
#include "core/error.h"

namespace mb::tcp {
namespace {

using comm::Joining;
using comm::kMaxRanks;
using comm::now_ns;

constexpr uint64_t kMagic = 0x3130'7063'7462'6d00;
constexpr size_t kKeyAt = 96, kKeyBytes = 32;
// Of a connection that has not proven itself, as the rendezvous store has it.
constexpr int64_t kHandshakeNs = 10'000'000'000;
constexpr size_t kStrangers = 64;
// The first rank says who did not come before the others give up by themselves.
constexpr int64_t kLaterNs = 2'000'000'000;
constexpr int64_t kRetryNs = 100'000'000;

struct Id {
  uint64_t magic;
  uint64_t inode;  // of the socket, to recognise a descriptor number that was reused
  int32_t pid, fd;
  Place place;
};
static_assert(sizeof(Id) <= kKeyAt);

// What a member says first, and what the other answers; then it sends its proof.
struct Hello {
  uint64_t magic;
  int32_t rank;   // in the group
  uint32_t port;  // where those behind it reach it
  uint8_t nonce[16];
};
struct Challenge {
  uint8_t nonce[16];
  Digest proof;
};

// From the first rank, once all are there, or why not: a text of `length` bytes, or all places.
struct Verdict {
  int32_t code;
  uint32_t length;
};
constexpr uint32_t kMaxText = 760;

Id read_id(const uint8_t bytes[128]) {
  Id id;
  memcpy(&id, bytes, sizeof id);
  return id;
}

std::string text_of(const Place& place) {
  char text[64];
  const bool six = strchr(place.address, ':') != nullptr;
  snprintf(text, sizeof text, six ? "[%s]:%d" : "%s:%d", place.address, int{place.port});
  return text;
}

class Join {
 public:
  Join(const Joining& who, std::vector<int>* sockets)
      : who_(who),
        sockets_(*sockets),
        limit_{now_ns() + who.timeout_ns, [&who] { return who.ended(); }},
        group_(comm::group_text(who.name, who.ranks, who.size)) {
    memcpy(key_, who.id + kKeyAt, kKeyBytes);
    sockets_.assign(static_cast<size_t>(who.size), -1);
    places_.resize(static_cast<size_t>(who.size));
  }
  ~Join() {
    if (listener_ >= 0) close(listener_);
    for (const Guest& guest : guests_) close(guest.fd);
  }

  int run() {
    const int status = who_.rank == 0 ? receive_all() : go();
    if (status == MB_OK) return MB_OK;
    for (int& fd : sockets_) {
      if (fd >= 0) close(fd);
      fd = -1;
    }
    return status;
  }

 private:
  // A connection that has not proven itself.
  struct Guest {
    explicit Guest(int socket) : fd(socket), since(now_ns()) {}
    int fd;
    int64_t since;
    size_t got = 0;
    Hello hello;
    Digest given;
    uint8_t nonce[16];
  };
  enum class Progress { kWaits, kMember, kStranger };

  std::string rank_name(int r) const { return "rank " + std::to_string(who_.ranks[r]); }

  int late(const std::string& what) {
    if (who_.ended()) return fail(MB_ERR_PEER, "%s: the thread that joins has ended", group_.c_str());
    return fail(MB_ERR_TIMEOUT, "create timed out: %s has waited %.1f s for %s (%s, in create)",
                rank_name(who_.rank).c_str(), static_cast<double>(who_.timeout_ns) * 1e-9, what.c_str(),
                group_.c_str());
  }
  int lost(int r, int error) {
    return fail(MB_ERR_PEER, "%s was lost: its connection ended%s%s (%s, in create)", rank_name(r).c_str(),
                error ? ": " : "", error ? strerror(error) : "", group_.c_str());
  }

  Digest proof(char side, int server, const Hello& hello, const uint8_t nonce[16]) const {
    uint8_t said[1 + sizeof server + sizeof hello + 16];
    said[0] = static_cast<uint8_t>(side);
    memcpy(said + 1, &server, sizeof server);
    memcpy(said + 1 + sizeof server, &hello, sizeof hello);
    memcpy(said + 1 + sizeof server + sizeof hello, nonce, 16);
    return hmac(key_, said, sizeof said);
  }

  // The first rank: all come to it, and are told where the others are.
  int receive_all() {
    listener_ = dup(read_id(who_.id).fd);
    release_id(who_.id);
    if (listener_ < 0) return fail(MB_ERR_MEMORY, "%s: a socket: %s", group_.c_str(), strerror(errno));
    const int status = receive();
    const std::string text = status == MB_OK ? "" : last_error();
    const Verdict verdict{status, static_cast<uint32_t>(std::min<size_t>(text.size(), kMaxText))};
    const Limit brief{now_ns() + kLaterNs, nullptr};
    int gone = -1, error = 0;
    for (int r = 1; r < who_.size; r++) {
      const int fd = sockets_[r];
      if (fd < 0) continue;
      Io io = write_all(fd, &verdict, sizeof verdict, brief);
      if (io == Io::kDone && status != MB_OK) io = write_all(fd, text.data(), verdict.length, brief);
      if (io == Io::kDone && status == MB_OK) {
        io = write_all(fd, places_.data(), places_.size() * sizeof(Place), brief);
      }
      if (io == Io::kDone || gone >= 0) continue;
      gone = r;
      error = errno;
    }
    if (status != MB_OK) return fail(status, "%s", text.c_str());
    return gone < 0 ? MB_OK : lost(gone, error);
  }

  // The others: to the first rank, to those before this one, and then those behind it come.
  int go() {
    const Id id = read_id(who_.id);
    places_[0] = id.place;
    int status = visit(0);
    if (status != MB_OK) return status;
    limit_.until_ns += kLaterNs;
    Verdict verdict;
    Io io = read_all(sockets_[0], &verdict, sizeof verdict, limit_);
    if (io == Io::kDone && verdict.code != MB_OK) {
      std::string text(std::min(verdict.length, kMaxText), ' ');
      io = read_all(sockets_[0], text.data(), text.size(), limit_);
      if (io == Io::kDone) return fail(verdict.code, "%s", text.c_str());
    }
    if (io == Io::kDone) io = read_all(sockets_[0], places_.data(), places_.size() * sizeof(Place), limit_);
    if (io == Io::kLate) return late(rank_name(0));
    if (io == Io::kFailed) return lost(0, errno);
    for (int r = 1; r < who_.rank; r++) {
      places_[r].address[sizeof places_[r].address - 1] = 0;
      if ((status = visit(r)) != MB_OK) return status;
    }
    return receive();
  }

  // Connects to member r, and both prove themselves.
  int visit(int r) {
    const std::string at = rank_name(r) + " at " + text_of(places_[r]);
    int fd;
    for (bool is_late; (fd = connect_to(places_[r], limit_, &is_late)) < 0;) {
      const int error = errno;
      if (is_late || limit_.reached()) return late(at + (is_late ? "" : std::string(" (") + strerror(error) + ")"));
      if (error == ECONNREFUSED || error == ECONNRESET) {  // it listened before it said where
        return fail(MB_ERR_PEER, "%s was lost: nobody listens there any more (%s, in create)", at.c_str(),
                    group_.c_str());
      }
      if (error != EHOSTUNREACH && error != ENETUNREACH && error != ETIMEDOUT && error != EAGAIN) {
        return fail(MB_ERR_DEVICE, "%s cannot be reached: %s (%s, in create)", at.c_str(), strerror(error),
                    group_.c_str());
      }
      poll(nullptr, 0, static_cast<int>(kRetryNs / 1'000'000));
    }
    sockets_[r] = fd;
    if (listener_ < 0) {
      Place own = near_end(fd);
      own.port = 0;
      listener_ = listen_on(&own);
      if (listener_ < 0)
        return fail(MB_ERR_DEVICE, "%s: listen on %s: %s", group_.c_str(), own.address, strerror(errno));
      port_ = own.port;
    }
    Hello hello{kMagic, who_.rank, port_, {}};
    if (getrandom(hello.nonce, sizeof hello.nonce, 0) != sizeof hello.nonce)
      return fail(MB_ERR_DEVICE, "no random bytes");
    Challenge challenge;
    Io io = write_all(fd, &hello, sizeof hello, limit_);
    if (io == Io::kDone) io = read_all(fd, &challenge, sizeof challenge, limit_);
    if (io == Io::kFailed && !limit_.reached()) {  // dropped among strangers, or gone: then nobody listens
      close(fd);
      sockets_[r] = -1;
      poll(nullptr, 0, static_cast<int>(kRetryNs / 1'000'000));
      return visit(r);
    }
    if (io == Io::kDone && !same(challenge.proof, proof('s', r, hello, challenge.nonce))) {
      return fail(MB_ERR_PEER, "%s does not know the key of this run (%s, in create)", at.c_str(), group_.c_str());
    }
    if (io == Io::kDone) {
      const Digest own = proof('c', r, hello, challenge.nonce);
      io = write_all(fd, own.data(), own.size(), limit_);
    }
    if (io == Io::kLate) return late(at);
    return io == Io::kDone ? MB_OK : lost(r, errno);
  }

  // Until all behind this member have come. Whoever does not prove itself is dropped, and holds nobody up.
  int receive() {
    for (;;) {
      std::string missing;
      for (int r = who_.rank + 1; r < who_.size; r++) {
        if (sockets_[r] < 0) missing += (missing.empty() ? "" : ", ") + rank_name(r);
      }
      if (missing.empty()) return MB_OK;
      if (limit_.reached()) return late(missing);
      std::vector<pollfd> waited{{listener_, POLLIN, 0}};
      for (const Guest& guest : guests_) waited.push_back({guest.fd, POLLIN, 0});
      for (const int fd : sockets_) waited.push_back({fd, POLLRDHUP, 0});  // below 0 it is passed over
      poll(waited.data(), waited.size(), 50);
      for (int r = 0; r < who_.size; r++) {
        if (waited[waited.size() - static_cast<size_t>(who_.size - r)].revents != 0) return lost(r, 0);
      }
      for (int fd; (fd = accept_from(listener_)) >= 0;) guests_.emplace_back(fd);
      const size_t most = kStrangers + static_cast<size_t>(who_.size);
      for (size_t i = 0; i < guests_.size();) {
        Progress progress = hear(guests_[i]);
        // Those go first that have said nothing of ours yet.
        const bool greeted = guests_[i].got >= sizeof(Hello);
        const bool crowded = guests_.size() > (greeted ? 4 * most : most);
        const bool old = crowded || now_ns() - guests_[i].since > kHandshakeNs;
        if (old && progress == Progress::kWaits) progress = Progress::kStranger;
        if (progress == Progress::kWaits) {
          i++;
          continue;
        }
        if (progress == Progress::kStranger) close(guests_[i].fd);
        guests_.erase(guests_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

  Progress hear(Guest& guest) {
    for (;;) {
      const bool greeted = guest.got >= sizeof guest.hello;
      const size_t whole = greeted ? sizeof guest.hello + sizeof guest.given : sizeof guest.hello;
      char* at = greeted ? reinterpret_cast<char*>(&guest.given) + guest.got - sizeof guest.hello
                         : reinterpret_cast<char*>(&guest.hello) + guest.got;
      const ssize_t n = recv(guest.fd, at, whole - guest.got, 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Progress::kWaits;
      if (n <= 0) return Progress::kStranger;
      guest.got += static_cast<size_t>(n);
      if (guest.got < whole) continue;
      const Hello& hello = guest.hello;
      if (!greeted) {
        Challenge challenge;
        const bool fits = hello.magic == kMagic && hello.rank > who_.rank && hello.rank < who_.size;
        if (!fits || getrandom(guest.nonce, sizeof guest.nonce, 0) != sizeof guest.nonce) return Progress::kStranger;
        memcpy(challenge.nonce, guest.nonce, sizeof guest.nonce);
        challenge.proof = proof('s', who_.rank, hello, guest.nonce);
        if (send(guest.fd, &challenge, sizeof challenge, MSG_NOSIGNAL) != sizeof challenge) return Progress::kStranger;
        continue;
      }
      if (!same(guest.given, proof('c', who_.rank, hello, guest.nonce))) return Progress::kStranger;
      if (sockets_[hello.rank] >= 0) return Progress::kStranger;
      sockets_[hello.rank] = guest.fd;
      places_[hello.rank] = far_end(guest.fd);
      places_[hello.rank].port = static_cast<uint16_t>(hello.port);
      return Progress::kMember;
    }
  }

  const Joining& who_;
  std::vector<int>& sockets_;
  Limit limit_;
  const std::string group_;
  uint8_t key_[kKeyBytes];
  int listener_ = -1;
  uint16_t port_ = 0;
  std::vector<Place> places_;
  std::vector<Guest> guests_;
};

}  // namespace

int make_id(const char* address, uint8_t bytes[128]) {
  Id id{};
  id.magic = kMagic;
  id.pid = getpid();
  snprintf(id.place.address, sizeof id.place.address, "%s", address);
  id.fd = listen_on(&id.place);
  struct stat info;
  if (id.fd < 0 || fstat(id.fd, &info) != 0) {
    return fail(MB_ERR_DEVICE, "cannot listen for ranks of other nodes on %s: %s", address, strerror(errno));
  }
  id.inode = info.st_ino;
  memset(bytes, 0, 128);
  memcpy(bytes, &id, sizeof id);
  return MB_OK;
}

bool is_id(const uint8_t bytes[128]) { return read_id(bytes).magic == kMagic; }

void release_id(const uint8_t bytes[128]) {
  const Id id = read_id(bytes);
  struct stat info;
  if (id.pid != getpid() || fstat(id.fd, &info) != 0) return;
  if (info.st_ino == id.inode) close(id.fd);
}

int join(const Joining& who, std::vector<int>* sockets) { return Join(who, sockets).run(); }

}  // namespace mb::tcp
