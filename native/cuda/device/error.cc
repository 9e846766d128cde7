#include "cuda/device/error.h"

namespace {

// After one of these the process cannot use the device again.
bool loses_context(cudaError_t error) {
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

namespace mb::cuda {

int cuda_fail(cudaError_t error, const char* what) {
  cudaGetLastError();  // an error that is not sticky must not surface again in an unrelated later check
  const char* after = "";
  if (loses_context(error)) {
    after =
        " (the device is lost to this process, and an earlier asynchronous operation may be the cause: "
        "MBRIDGE_CUDA_SYNC=1 names the op that fails)";
  } else if (error == cudaErrorNoKernelImageForDevice) {
    after = " (the library was built for other GPUs: build it on this machine, or with MBRIDGE_CUDA_ARCHS=all)";
  }
  return fail(error == cudaErrorMemoryAllocation ? MB_ERR_MEMORY : MB_ERR_DEVICE, "%s: %s: %s%s", what,
              cudaGetErrorName(error), cudaGetErrorString(error), after);
}

}  // namespace mb::cuda
