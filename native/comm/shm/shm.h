// Collectives between the processes of one machine over shared memory: the communicators of the CPU backend.
#pragma once
#include <stdint.h>

#include "core/abi.h"

// The table of core/abi.h, but for share and the fused ops, which the CPU backend adds. The device argument of its
// functions is not used and streams are synchronous: a call returns when its result is there. Groups have 1 to 64
// members, which must share a user and a PID namespace. One thread at a time makes calls on a communicator; abort and
// check may come from any thread. Error texts go to mb::fail.
const mb_comm_table* mb_shm_comm_table();

// Bytes of /dev/shm that a group of `size` ranks occupies; 0 for size 1.
int64_t mb_shm_segment_bytes(int size);
