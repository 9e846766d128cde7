// The communicators of the CPU backend: over shared memory between processes, or threads, of one node, and over TCP in
// a group that spans nodes.
#pragma once
#include <stdint.h>

#include <atomic>

#include "core/abi.h"

// The table of core/abi.h, but for share and the fused ops, which the CPU backend adds. The device argument of its
// functions is not used and streams are synchronous: a call returns when its result is there. Groups have 1 to 64
// members; those of one node must share a user and a PID namespace. One thread at a time makes calls on a communicator;
// abort and check may come from any thread. Error texts go to mb::fail.
const mb_comm_table* mb_host_comm_table();

// The table's create for a member whose life is a thread's. Once *thread_ended is true it gives up joining, and where
// the communicator is destroyed then, the others are told that it died. The flag outlives the communicator.
int mb_host_comm_create(const std::atomic<bool>* thread_ended, const uint8_t id[128], const char* name, int rank,
                        int size, const int32_t* ranks, double timeout_s, mb_comm** out);
// Closes what make_id opened, if this process did and no group was made of it.
void mb_host_release_id(const uint8_t id[128]);

// Bytes of /dev/shm that a group of `size` ranks of one node occupies; 0 for size 1.
int64_t mb_shm_segment_bytes(int size);
