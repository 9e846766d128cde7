#include "core/error.h"

#include <cstdarg>
#include <cstdio>

namespace mb {

static thread_local char text[2048] = "";

int fail(int status, const char* format, ...) {
  char next[sizeof(text)];  // the arguments may point into `text`
  va_list args;
  va_start(args, format);
  vsnprintf(next, sizeof(next), format, args);
  va_end(args);
  snprintf(text, sizeof(text), "%s", next);
  return status;
}

const char* last_error() { return text; }

}  // namespace mb
