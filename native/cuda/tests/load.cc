// Loads libmbridge_cuda.so as the addon does and prints one JSON object: what it answers without needing a device.
//   mbridge_cuda_load <path of libmbridge_cuda.so>
#include <dlfcn.h>
#include <stdio.h>

#include <string>

#include "core/abi.h"

static std::string quote(const char* text) {
  std::string out = "\"";
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') out += '\\';
    out += static_cast<unsigned char>(*text) < 0x20 ? ' ' : *text;
  }
  return out + "\"";
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: mbridge_cuda_load <libmbridge_cuda.so>\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  auto entry = reinterpret_cast<mb_backend_entry_fn>(dlsym(library, "mb_backend_entry"));
  if (!entry) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const mb_backend* other = entry(MB_ABI + 1);
  const mb_backend* backend = entry(MB_ABI);
  if (!backend) {
    fprintf(stderr, "mb_backend_entry(%d) is null\n", MB_ABI);
    return 1;
  }
  int holes = 0;
  for (mb_op_fn op : backend->ops) holes += op == nullptr;
  int count = -1;
  const int count_status = backend->device_count(&count);
  const std::string count_error = count_status == MB_OK ? "" : backend->last_error();
  mb_device* device = nullptr;
  const int open_status = backend->open(count > 0 ? count : 0, 1, &device);  // one past the last
  const std::string open_error = open_status == MB_OK ? "" : backend->last_error();
  printf(
      "{\"name\":%s,\"abi\":%u,\"other_abi_is_null\":%s,\"missing_ops\":%d,\"count\":%d,\"count_status\":%d,"
      "\"count_error\":%s,\"open_status\":%d,\"open_error\":%s,\"describe\":%s}\n",
      quote(backend->name).c_str(), backend->abi, other ? "false" : "true", holes, count, count_status,
      quote(count_error.c_str()).c_str(), open_status, quote(open_error.c_str()).c_str(), backend->describe());
  return 0;
}
