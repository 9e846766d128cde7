#include "cuda/libs/libs.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cuda/device/error.h"

namespace mb::cuda {
namespace {

bool is_directory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void add_pip_folders(const std::string& root, std::vector<std::string>* out) {
  glob_t found = {};
  if (glob((root + "/nvidia/*/lib").c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++) out->push_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

// This library lies in <package>/native/build.
std::string package_root() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&require_library), &info) || !info.dli_fname) return "";
  char* real = realpath(info.dli_fname, nullptr);
  if (!real) return "";
  std::string path = real;
  free(real);
  for (int up = 0; up < 3; up++) {
    size_t slash = path.find_last_of('/');
    if (slash == std::string::npos) return "";
    path.resize(slash);
  }
  return path;
}

std::string path_of(void* handle) {
  struct link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map ? map->l_name : "";
}

void* open(const std::vector<const char*>& sonames, Library* library) {
  std::string tried;
  auto attempt = [&](const std::string& path) -> void* {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char* error = handle ? nullptr : dlerror();
    if (handle) {
      library->path = path_of(handle);
    } else {
      tried += (tried.empty() ? "" : "; ") + std::string(error ? error : path.c_str());
    }
    return handle;
  };
  for (const std::string& directory : library_directories()) {
    for (const char* soname : sonames) {
      const std::string path = directory + "/" + soname;
      struct stat info;
      if (stat(path.c_str(), &info) != 0) continue;
      if (void* handle = attempt(path)) return handle;
    }
  }
  for (const char* soname : sonames) {
    if (void* handle = attempt(soname)) return handle;
  }
  library->reason = std::string(library->name) + " (" + sonames[0] + "), needed for " + library->needed_for +
                    ", could not be loaded: " + tried +
                    ". Run `mbridge setup-cuda`, or set MBRIDGE_CUDA_LIBS to the folder that holds it (a Python "
                    "site-packages with PyTorch's nvidia/ packages will do).";
  return nullptr;
}

template <class F>
void resolve(void* handle, const char* symbol, F* function, Library* library) {
  *function = reinterpret_cast<F>(dlsym(handle, symbol));
  if (!*function && library->reason.empty()) {
    library->reason = std::string(library->name) + " at " + library->path + " has no symbol " + symbol +
                      ": it is too old or incomplete. Run `mbridge setup-cuda`, or set MBRIDGE_CUDA_LIBS to the folder "
                      "of a newer one.";
  }
}

std::string dotted(int64_t major, int64_t minor, int64_t patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

Nccl open_nccl() {
  Nccl lib;
  nccl::Functions& functions = lib;
  lib.name = "NCCL";
  lib.needed_for = "communication between GPUs";
  void* handle = open({"libnccl.so.2"}, &lib);
  if (!handle) return lib;
#define MB_RESOLVE(name, result, args) resolve(handle, "nccl" #name, &functions.name, &lib);
  MB_NCCL_FUNCTIONS(MB_RESOLVE)
#undef MB_RESOLVE
  if (!lib.reason.empty()) return lib;
  int version = 0;
  lib.GetVersion(&version);
  lib.version_number = version;
  lib.version = dotted(version / 10000, version / 100 % 100, version % 100);
  lib.loaded = true;
  return lib;
}

CublasLt open_cublaslt() {
  CublasLt lib;
  lt::Functions& functions = lib;
  lib.name = "cuBLASLt";
  lib.needed_for = "matrix products";
  void* handle = open({"libcublasLt.so.13", "libcublasLt.so.12"}, &lib);
  if (!handle) return lib;
#define MB_RESOLVE(name, result, args) resolve(handle, "cublasLt" #name, &functions.name, &lib);
  MB_CUBLASLT_FUNCTIONS(MB_RESOLVE)
#undef MB_RESOLVE
  if (!lib.reason.empty()) return lib;
  lib.version_number = static_cast<int64_t>(lib.GetVersion());
  lib.version = dotted(lib.version_number / 10000, lib.version_number / 100 % 100, lib.version_number % 100);
  lib.loaded = true;
  return lib;
}

Cudnn open_cudnn() {
  // cuDNN opens cuBLASLt by soname itself; opened first, ours is the one it gets.
  load_cublaslt();
  Cudnn lib;
  cudnn::Functions& functions = lib;
  lib.name = "cuDNN";
  lib.needed_for = "fast bf16 attention (a slower kernel of our own serves without it)";
  void* handle = open({"libcudnn.so.9"}, &lib);
  if (!handle) return lib;
#define MB_RESOLVE(name, result, args) resolve(handle, "cudnn" #name, &functions.name, &lib);
  MB_CUDNN_FUNCTIONS(MB_RESOLVE)
#undef MB_RESOLVE
  if (!lib.reason.empty()) return lib;
  lib.version_number = static_cast<int64_t>(lib.GetVersion());
  lib.version = dotted(lib.version_number / 10000, lib.version_number / 100 % 100, lib.version_number % 100);
  lib.loaded = true;
  return lib;
}

}  // namespace

std::vector<std::string> library_directories() {
  std::vector<std::string> directories;
  const char* list = getenv("MBRIDGE_CUDA_LIBS");
  for (std::string rest = list ? list : ""; !rest.empty();) {
    size_t colon = rest.find(':');
    std::string entry = rest.substr(0, colon);
    while (entry.size() > 1 && entry.back() == '/') entry.pop_back();
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
    if (entry.empty()) continue;
    directories.push_back(entry);
    add_pip_folders(entry, &directories);
    if (entry.size() >= 6 && entry.compare(entry.size() - 6, 6, "nvidia") == 0)
      add_pip_folders(entry + "/..", &directories);
  }
  const std::string root = package_root();
  if (!root.empty()) add_pip_folders(root + "/.cuda", &directories);
  std::vector<std::string> existing;
  for (std::string& directory : directories) {
    if (is_directory(directory)) existing.push_back(std::move(directory));
  }
  return existing;
}

const Nccl& load_nccl() {
  static const Nccl library = open_nccl();
  return library;
}

const CublasLt& load_cublaslt() {
  static const CublasLt library = open_cublaslt();
  return library;
}

const Cudnn& load_cudnn() {
  static const Cudnn library = open_cudnn();
  return library;
}

int require_library(const Library& library) {
  return library.loaded ? MB_OK : fail(MB_ERR_LIBRARY, "%s", library.reason.c_str());
}

}  // namespace mb::cuda
