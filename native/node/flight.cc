#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

// Takes the file over where it is the launcher's, unnamed and of this size: another one of that number is left alone.
Napi::Value Addon::flight_open(Info info) {
  const int file = static_cast<int>(integer(info, 0, "file", 0, 1 << 20));
  struct stat found;
  const bool ours = fstat(file, &found) == 0 && S_ISREG(found.st_mode) && found.st_nlink == 0 &&
                    found.st_size == static_cast<off_t>(sizeof(flight::Record));
  const bool moved = ours && state_.recorder->move_to(file);
  if (ours) ::close(file);
  return Napi::Boolean::New(info.Env(), moved);
}

void Addon::flight_phase(Info info) {
  const int64_t step = integer(info, 0, "step", 0, int64_t{1} << 52);
  state_.recorder->phase(step, text(info, 1, "phase"));
}

Napi::Value Addon::flight_record(Info info) {
  const auto* record = reinterpret_cast<const uint8_t*>(state_.recorder->record());
  Napi::Uint8Array copy = Napi::Uint8Array::New(info.Env(), sizeof(flight::Record));
  std::copy_n(record, sizeof(flight::Record), copy.Data());
  return copy;
}

}  // namespace mb::node
