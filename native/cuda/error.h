// Error texts of the CUDA backend: one per thread, read through mb_backend::last_error.
#pragma once
#include <cuda_runtime_api.h>

#include "../core/abi.h"

extern "C" void mb_cuda_set_error(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

namespace mbcuda {

// Sets the text and returns the status.
int Fail(int status, const char* fmt, ...) __attribute__((format(printf, 2, 3)));

// MB_ERR_MEMORY for a refused allocation, else MB_ERR_DEVICE, with CUDA's name and description of the error.
int CudaFail(cudaError_t error, const char* what);

const char* LastError();

}  // namespace mbcuda

#define MB_CUDA(call)                                                                    \
  do {                                                                                   \
    cudaError_t mb_cuda_error_ = (call);                                                 \
    if (mb_cuda_error_ != cudaSuccess) return ::mbcuda::CudaFail(mb_cuda_error_, #call); \
  } while (0)

// For calls of our own that return an mb_status with the text already set.
#define MB_TRY(call)                            \
  do {                                          \
    int mb_status_ = (call);                    \
    if (mb_status_ != MB_OK) return mb_status_; \
  } while (0)
