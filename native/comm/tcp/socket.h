// Sockets that do not block, and waits for them that end at a time.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>

namespace mb::tcp {

// An IPv4 or IPv6 address as text, and a port.
struct Place {
  char address[46];
  uint16_t port;
};

// How a wait or a transfer ended. kFailed: errno says why, 0 where the other side has closed.
enum class Io { kDone, kFailed, kLate };

// When a wait ends without success: a time of now_ns, or because the caller has ended.
struct Limit {
  int64_t until_ns;
  std::function<bool()> ended;
  bool reached() const;
};

// Listens on `place.address` and sets the port that it got. -1, and errno, on a failure.
int listen_on(Place* place);
// A connection without delays that notices within 20 s that the other machine is gone. -1, errno and *late on a
// failure.
int connect_to(const Place& place, const Limit& limit, bool* late);
// The next connection of a listener, as connect_to's; -1 where none waits.
int accept_from(int listener);

// Where this side, or the other, of a connection is.
Place near_end(int fd);
Place far_end(int fd);

Io read_all(int fd, void* data, size_t bytes, const Limit& limit);
Io write_all(int fd, const void* data, size_t bytes, const Limit& limit);

}  // namespace mb::tcp
