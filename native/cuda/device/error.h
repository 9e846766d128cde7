// Failures of the CUDA runtime as texts and statuses.
#pragma once
#include <cuda_runtime_api.h>

#include "core/error.h"

namespace mb::cuda {

// MB_ERR_MEMORY for a refused allocation, else MB_ERR_DEVICE, with CUDA's name and description of the error.
int cuda_fail(cudaError_t error, const char* what);

}  // namespace mb::cuda

#define MB_CUDA(call)                                                                       \
  do {                                                                                      \
    cudaError_t mb_cuda_error_ = (call);                                                    \
    if (mb_cuda_error_ != cudaSuccess) return ::mb::cuda::cuda_fail(mb_cuda_error_, #call); \
  } while (0)

// For calls of our own that return an mb_status with the text already set.
#define MB_TRY(call)                            \
  do {                                          \
    int mb_status_ = (call);                    \
    if (mb_status_ != MB_OK) return mb_status_; \
  } while (0)
