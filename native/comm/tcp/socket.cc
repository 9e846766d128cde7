#include "comm/tcp/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/communicator.h"

namespace mb::tcp {
namespace {

constexpr int kLookMs = 50;
constexpr int kBacklog = 128;

struct Name {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);
  sockaddr* base() { return reinterpret_cast<sockaddr*>(&storage); }
};

bool name_of(const Place& place, Name* name) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&name->storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&name->storage);
  if (inet_pton(AF_INET, place.address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(place.port);
    name->length = sizeof *v4;
    return true;
  }
  if (inet_pton(AF_INET6, place.address, &v6->sin6_addr) != 1) {
    errno = EINVAL;
    return false;
  }
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(place.port);
  name->length = sizeof *v6;
  return true;
}

Place place_of(const Name& name) {
  Place place{};
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&name.storage);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&name.storage);
  const bool six = name.storage.ss_family == AF_INET6;
  inet_ntop(six ? AF_INET6 : AF_INET, six ? static_cast<const void*>(&v6->sin6_addr) : &v4->sin_addr, place.address,
            sizeof place.address);
  place.port = ntohs(six ? v6->sin6_port : v4->sin_port);
  return place;
}

void set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

void tune(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 20'000);
}

// Until the socket is ready; kFailed never.
Io wait_for(int fd, short events, const Limit& limit) {
  while (!limit.reached()) {
    pollfd waited{fd, events, 0};
    if (poll(&waited, 1, kLookMs) > 0) return Io::kDone;
  }
  return Io::kLate;
}

int closed(int fd) {
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// Moves all bytes, a piece whenever the socket is ready.
template <typename Move>
Io move_all(int fd, size_t bytes, short events, const Limit& limit, Move move) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = move(done, bytes - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n == 0) {
      errno = 0;
      return Io::kFailed;
    } else if (errno != EAGAIN && errno != EINTR) {
      return Io::kFailed;
    } else if (wait_for(fd, events, limit) == Io::kLate) {
      return Io::kLate;
    }
  }
  return Io::kDone;
}

}  // namespace

bool Limit::reached() const { return comm::now_ns() > until_ns || (ended && ended()); }

int listen_on(Place* place) {
  Name name;
  if (!name_of(*place, &name)) return -1;
  const int fd = socket(name.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  Name got;
  if (bind(fd, name.base(), name.length) != 0 || listen(fd, kBacklog) != 0 ||
      getsockname(fd, got.base(), &got.length) != 0) {
    return closed(fd);
  }
  place->port = place_of(got).port;
  return fd;
}

int connect_to(const Place& place, const Limit& limit, bool* late) {
  *late = false;
  Name name;
  if (!name_of(place, &name)) return -1;
  const int fd = socket(name.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  tune(fd);
  if (connect(fd, name.base(), name.length) == 0) return fd;
  if (errno != EINPROGRESS) return closed(fd);
  if (wait_for(fd, POLLOUT, limit) == Io::kLate) {
    *late = true;
    return closed(fd);
  }
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) return fd;
  errno = error;
  return closed(fd);
}

int accept_from(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) tune(fd);
  return fd;
}

Place near_end(int fd) {
  Name name;
  getsockname(fd, name.base(), &name.length);
  return place_of(name);
}

Place far_end(int fd) {
  Name name;
  getpeername(fd, name.base(), &name.length);
  return place_of(name);
}

Io read_all(int fd, void* data, size_t bytes, const Limit& limit) {
  return move_all(fd, bytes, POLLIN, limit,
                  [&](size_t done, size_t left) { return recv(fd, static_cast<char*>(data) + done, left, 0); });
}

Io write_all(int fd, const void* data, size_t bytes, const Limit& limit) {
  return move_all(fd, bytes, POLLOUT, limit, [&](size_t done, size_t left) {
    return send(fd, static_cast<const char*>(data) + done, left, MSG_NOSIGNAL);
  });
}

}  // namespace mb::tcp
