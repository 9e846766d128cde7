#include "error.h"

#include <stdarg.h>
#include <stdio.h>

namespace {

thread_local char error_text[2048];

void Format(const char* fmt, va_list args) { vsnprintf(error_text, sizeof error_text, fmt, args); }

// After one of these the process cannot use the device again.
bool LosesContext(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" void mb_cuda_set_error(const char* fmt, ...) {
  va_list args;
  va_start(args, fmt);
  Format(fmt, args);
  va_end(args);
}

namespace mbcuda {

int Fail(int status, const char* fmt, ...) {
  va_list args;
  va_start(args, fmt);
  Format(fmt, args);
  va_end(args);
  return status;
}

int CudaFail(cudaError_t error, const char* what) {
  cudaGetLastError();  // an error that is not sticky must not surface again in an unrelated later check
  const char* after = "";
  if (LosesContext(error)) {
    after =
        " (the device is lost to this process, and an earlier asynchronous operation may be the cause: "
        "MBRIDGE_CUDA_SYNC=1 names the op that fails)";
  } else if (error == cudaErrorNoKernelImageForDevice) {
    after = " (the library was built for other GPUs: build it on this machine, or with MBRIDGE_CUDA_ARCHS=all)";
  }
  return Fail(error == cudaErrorMemoryAllocation ? MB_ERR_MEMORY : MB_ERR_DEVICE, "%s: %s: %s%s", what,
              cudaGetErrorName(error), cudaGetErrorString(error), after);
}

const char* LastError() { return error_text; }

}  // namespace mbcuda
