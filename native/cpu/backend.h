// The CPU backend's table: always there, needs no library.
#pragma once
#include "core/abi.h"

const mb_backend* mb_cpu_backend();

// Says that the thread which opened the device ends without having left its groups: the other members learn that it
// died as its communicators are destroyed, and one that it is still joining gives up.
void mb_cpu_thread_ended(mb_device* device);
