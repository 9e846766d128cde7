// mb_comm_table over NCCL.
//
// Communicators are non-blocking: NCCL works in a thread of its own and the caller polls, so that a peer that never
// comes ends in an error and not in a call that does not return. A communicator connects when it is made, proven by one
// all-reduce whose sum is checked; channels of other algorithms and of point-to-point pairs connect at their first use.
// MBRIDGE_NCCL_BLOCKING=1 makes blocking ones, for measuring what the hand-over costs: create() then has no time-out.
//
// A group of one member needs no library: its collectives are copies.
#pragma once
#include "core/abi.h"

namespace mb::cuda {

mb_comm_table nccl_table();

}  // namespace mb::cuda
