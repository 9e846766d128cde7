// NCCL, cuBLASLt and cuDNN, opened by soname when first needed. Nothing links against them, so that the backend loads
// without them and can name the one that is missing and its remedy.
//
// Looked for, in this order: the directories of MBRIDGE_CUDA_LIBS (a colon list; an entry may also be a folder that
// holds pip's `nvidia/` packages, such as a site-packages), the `.cuda` folder that `mbridge setup-cuda` makes in the
// package, and the system (LD_LIBRARY_PATH, ldconfig).
#pragma once
#include <string>
#include <vector>

#include "cuda/libs/abi_cublaslt.h"
#include "cuda/libs/abi_cudnn.h"
#include "cuda/libs/abi_nccl.h"

namespace mb::cuda {

struct Library {
  const char* name = "";  // "NCCL"
  const char* needed_for = "";
  bool loaded = false;
  int64_t version_number = 0;  // as the library reports it
  std::string version;         // "2.28.9"
  std::string path;
  std::string reason;  // why it was not loaded: every place tried with the loader's words, and the remedy
};

struct Nccl : Library, nccl::Functions {};
struct CublasLt : Library, lt::Functions {};
struct Cudnn : Library, cudnn::Functions {};

// Each is opened by the first call, once a process; the result does not change after.
const Nccl& load_nccl();
const CublasLt& load_cublaslt();
const Cudnn& load_cudnn();

// MB_OK, or MB_ERR_LIBRARY with the library's reason.
int require_library(const Library& library);

// Directories searched before the system, in order; those that exist.
std::vector<std::string> library_directories();

}  // namespace mb::cuda
