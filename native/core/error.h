// The error text behind mb_backend::last_error: one string per thread, valid until that thread's next failure. Each
// backend has its own.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "core/abi.h"

namespace mb {

// Stores a printf-formatted text for this thread and returns `status`, so that callers write `return fail(...)`.
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// The text of this thread's last failure; empty if it never failed.
const char* last_error();

}  // namespace mb
