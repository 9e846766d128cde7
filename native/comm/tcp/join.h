// How the members of a group find each other: its first rank listens where the id says, the others come to it and learn
// where the rest is, and each pair keeps one connection. Both sides of each prove that they know the group's key, which
// never crosses the network.
#pragma once
#include <stdint.h>

#include <vector>

#include "comm/communicator.h"

namespace mb::tcp {

// Listens on an address of this machine, for a group of which this process is the first rank. The last 32 bytes of the
// id are the group's key, for the caller to set.
int make_id(const char* address, uint8_t id[128]);
bool is_id(const uint8_t id[128]);
// Stops listening, if this process does. Harmless when it does not.
void release_id(const uint8_t id[128]);

// A connection to every other member, by rank in the group; -1 for this one. On a failure there is none.
int join(const comm::Joining& who, std::vector<int>* sockets);

}  // namespace mb::tcp
