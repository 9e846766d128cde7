// The part of NCCL's C ABI that we call. The library is opened at run time, so its headers are not needed to build;
// abi_check.cc compares every line here with them where they are installed.
#pragma once
#include <cuda_runtime_api.h>
#include <limits.h>
#include <stddef.h>

namespace mb::cuda::nccl {

typedef struct Opaque* Comm;

struct UniqueId {
  char bytes[128];
};

enum Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

enum DataType : int { kUint8 = 1, kInt32 = 2, kFloat32 = 7, kFloat64 = 8, kBfloat16 = 9 };
enum RedOp : int { kSum = 0, kMax = 2 };

constexpr unsigned kConfigMagic = 0xcafebeef;
constexpr int kConfigVersion = 22700;  // 2.27.0: the first whose config has what is below; a later library reads it so
constexpr int kUndefined = INT_MIN;

// NCCL copies min(size, its own size) bytes and takes defaults for what a config of this version lacks.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = kConfigMagic;
  unsigned version = kConfigVersion;
  int blocking = kUndefined;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
  int traffic_class = kUndefined;
  const char* comm_name = nullptr;
  int collnet_enable = kUndefined;
  int cta_policy = kUndefined;
  int shrink_share = kUndefined;
  int nvls_ctas = kUndefined;
};

// name, result, arguments
#define MB_NCCL_FUNCTIONS(X)                                                                  \
  X(GetVersion, Result, (int*))                                                               \
  X(GetUniqueId, Result, (UniqueId*))                                                         \
  X(CommInitRankConfig, Result, (Comm*, int, UniqueId, int, Config*))                         \
  X(CommFinalize, Result, (Comm))                                                             \
  X(CommDestroy, Result, (Comm))                                                              \
  X(CommAbort, Result, (Comm))                                                                \
  X(CommGetAsyncError, Result, (Comm, Result*))                                               \
  X(GetErrorString, const char*, (Result))                                                    \
  X(GetLastError, const char*, (Comm))                                                        \
  X(AllReduce, Result, (const void*, void*, size_t, DataType, RedOp, Comm, cudaStream_t))     \
  X(ReduceScatter, Result, (const void*, void*, size_t, DataType, RedOp, Comm, cudaStream_t)) \
  X(AllGather, Result, (const void*, void*, size_t, DataType, Comm, cudaStream_t))            \
  X(Broadcast, Result, (const void*, void*, size_t, DataType, int, Comm, cudaStream_t))       \
  X(Send, Result, (const void*, size_t, DataType, int, Comm, cudaStream_t))                   \
  X(Recv, Result, (void*, size_t, DataType, int, Comm, cudaStream_t))                         \
  X(GroupStart, Result, ())                                                                   \
  X(GroupEnd, Result, ())

struct Functions {
#define MB_MEMBER(name, result, args) result(*name) args = nullptr;
  MB_NCCL_FUNCTIONS(MB_MEMBER)
#undef MB_MEMBER
};

}  // namespace mb::cuda::nccl
