#include "describe.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

#include <vector>

#include "device.h"
#include "gemm.h"
#include "libs.h"

#ifndef MBRIDGE_CUDA_ARCHITECTURES
#define MBRIDGE_CUDA_ARCHITECTURES "unknown"
#endif

namespace mbcuda {
namespace {

std::string Quote(const std::string& text) {
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

std::string QuoteOrNull(const std::string& text) { return text.empty() ? "null" : Quote(text); }

std::string Version(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string DescribeLibrary(const Library& library) {
  return "{\"name\":" + Quote(library.name) + ",\"needed_for\":" + Quote(library.needed_for) +
         ",\"loaded\":" + (library.loaded ? "true" : "false") + ",\"version\":" + QuoteOrNull(library.version) +
         ",\"path\":" + QuoteOrNull(library.path) + ",\"reason\":" + QuoteOrNull(library.reason) + "}";
}

std::string DescribeDevice(int index) {
  cudaDeviceProp properties = {};
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return "{\"index\":" + std::to_string(index) + ",\"error\":" + Quote(cudaGetErrorString(error)) + "}";
  }
  char peak[32];
  snprintf(peak, sizeof peak, "%g", PeakTflops(properties.name));
  char bus[32];
  snprintf(bus, sizeof bus, "%04x:%02x:%02x", properties.pciDomainID, properties.pciBusID, properties.pciDeviceID);
  return "{\"index\":" + std::to_string(index) + ",\"name\":" + Quote(properties.name) +
         ",\"capability\":" + std::to_string(properties.major * 10 + properties.minor) +
         ",\"total_bytes\":" + std::to_string(properties.totalGlobalMem) +
         ",\"multiprocessors\":" + std::to_string(properties.multiProcessorCount) + ",\"peak_tflops\":" + peak +
         ",\"pci\":" + Quote(bus) + ",\"error\":null}";
}

// Row i, column j: whether device i can read device j's memory directly.
std::string DescribePeers(int count) {
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

std::string Describe() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  int count = 0;
  const bool any = DeviceCount(&count) == MB_OK;
  const std::string device_error = any ? "" : LastError();
  // A driver serves every toolkit of its own major version and older.
  const int needed = CUDART_VERSION / 1000 * 1000;

  std::string out = "{\"backend\":\"cuda\",\"abi\":" + std::to_string(MB_ABI);
  out += ",\"runtime\":" + Quote(Version(CUDART_VERSION)) + ",\"architectures\":" + Quote(MBRIDGE_CUDA_ARCHITECTURES);
  out += ",\"driver\":{\"supports\":" + (driver ? Quote(Version(driver)) : "null") +
         ",\"needed\":" + Quote(Version(needed)) + ",\"ok\":" + (driver >= needed ? "true" : "false") + "}";
  out += ",\"devices\":[";
  for (int i = 0; i < count; i++) out += (i ? "," : "") + DescribeDevice(i);
  out += "],\"device_error\":" + QuoteOrNull(device_error) + ",\"peer_access\":" + DescribePeers(count);
  out += ",\"gemm_workspace_bytes_per_stream\":" + std::to_string(Gemm::kWorkspaceBytes);
  out += ",\"libraries\":{\"cublaslt\":" + DescribeLibrary(LoadCublasLt()) +
         ",\"cudnn\":" + DescribeLibrary(LoadCudnn()) + ",\"nccl\":" + DescribeLibrary(LoadNccl()) +
         "},\"library_directories\":[";
  const std::vector<std::string> directories = LibraryDirectories();
  for (size_t i = 0; i < directories.size(); i++) out += (i ? "," : "") + Quote(directories[i]);
  return out + "]}";
}

}  // namespace mbcuda
