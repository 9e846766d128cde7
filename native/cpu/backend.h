// The CPU backend's table: always there, needs no library.
#pragma once
#include "core/abi.h"

const mb_backend* mb_cpu_backend();
