#include "cuda/device/describe.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

#include <vector>

#include "cuda/device/device.h"
#include "cuda/libs/libs.h"
#include "cuda/ops/gemm.h"

#ifndef MBRIDGE_CUDA_ARCHITECTURES
#define MBRIDGE_CUDA_ARCHITECTURES "unknown"
#endif

namespace mb::cuda {
namespace {

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      char escape[8];
      snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

std::string quote_or_null(const std::string& text) { return text.empty() ? "null" : quote(text); }

std::string version(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string describe_library(const Library& library) {
  return "{\"name\":" + quote(library.name) + ",\"needed_for\":" + quote(library.needed_for) +
         ",\"loaded\":" + (library.loaded ? "true" : "false") + ",\"version\":" + quote_or_null(library.version) +
         ",\"path\":" + quote_or_null(library.path) + ",\"reason\":" + quote_or_null(library.reason) + "}";
}

std::string describe_device(int index) {
  cudaDeviceProp properties = {};
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return "{\"index\":" + std::to_string(index) + ",\"error\":" + quote(cudaGetErrorString(error)) + "}";
  }
  char peak[32];
  snprintf(peak, sizeof peak, "%g", peak_tflops(properties.name));
  char bus[32];
  snprintf(bus, sizeof bus, "%04x:%02x:%02x", properties.pciDomainID, properties.pciBusID, properties.pciDeviceID);
  return "{\"index\":" + std::to_string(index) + ",\"name\":" + quote(properties.name) +
         ",\"capability\":" + std::to_string(properties.major * 10 + properties.minor) +
         ",\"total_bytes\":" + std::to_string(properties.totalGlobalMem) +
         ",\"multiprocessors\":" + std::to_string(properties.multiProcessorCount) + ",\"peak_tflops\":" + peak +
         ",\"pci\":" + quote(bus) + ",\"error\":null}";
}

// Row i, column j: whether device i can read device j's memory directly.
std::string describe_peers(int count) {
  std::string out = "[";
  for (int i = 0; i < count; i++) {
    out += i ? ",[" : "[";
    for (int j = 0; j < count; j++) {
      int can = i == j;
      if (i != j && cudaDeviceCanAccessPeer(&can, i, j) != cudaSuccess) {
        cudaGetLastError();
        can = 0;
      }
      out += std::string(j ? "," : "") + (can ? "true" : "false");
    }
    out += "]";
  }
  return out + "]";
}

}  // namespace

std::string describe() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  int count = 0;
  const bool any = device_count(&count) == MB_OK;
  const std::string device_error = any ? "" : last_error();
  // A driver serves every toolkit of its own major version and older.
  const int needed = CUDART_VERSION / 1000 * 1000;

  std::string out = "{\"backend\":\"cuda\",\"abi\":" + std::to_string(MB_ABI);
  out += ",\"runtime\":" + quote(version(CUDART_VERSION)) + ",\"architectures\":" + quote(MBRIDGE_CUDA_ARCHITECTURES);
  out += ",\"driver\":{\"supports\":" + (driver ? quote(version(driver)) : "null") +
         ",\"needed\":" + quote(version(needed)) + ",\"ok\":" + (driver >= needed ? "true" : "false") + "}";
  out += ",\"devices\":[";
  for (int i = 0; i < count; i++) out += (i ? "," : "") + describe_device(i);
  out += "],\"device_error\":" + quote_or_null(device_error) + ",\"peer_access\":" + describe_peers(count);
  out += ",\"gemm_workspace_bytes_per_stream\":" + std::to_string(Gemm::kWorkspaceBytes);
  out += ",\"libraries\":{\"cublaslt\":" + describe_library(load_cublaslt()) +
         ",\"cudnn\":" + describe_library(load_cudnn()) + ",\"nccl\":" + describe_library(load_nccl()) +
         "},\"library_directories\":[";
  const std::vector<std::string> directories = library_directories();
  for (size_t i = 0; i < directories.size(); i++) out += (i ? "," : "") + quote(directories[i]);
  return out + "]}";
}

}  // namespace mb::cuda
