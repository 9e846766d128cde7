// What this machine offers the backend, as JSON, for `mbridge doctor` and error texts. Makes no context on any device.
#pragma once
#include <string>

namespace mb::cuda {

std::string describe();

}  // namespace mb::cuda
