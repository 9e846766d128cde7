#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>

#include "core/host.h"
#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

void Addon::die_with_parent(Info info) {
  const auto parent = static_cast<pid_t>(integer(info, 0, "parentPid", 1, 1 << 30));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the call above, which then never fires.
  if (getppid() != parent) _exit(128 + SIGKILL);
}

Napi::Value Addon::cpu_count(Info info) { return Napi::Number::New(info.Env(), usable_cores()); }

}  // namespace mb::node
