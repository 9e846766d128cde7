// The part of cuBLASLt's C ABI that we call. The library is opened at run time, so its headers are not needed to build;
// abi_check.cc compares every line here with them where they are installed.
#pragma once
#include <cuda_runtime_api.h>
#include <library_types.h>
#include <stddef.h>
#include <stdint.h>

namespace mb::cuda::lt {

typedef struct OpaqueHandle* Handle;
typedef struct OpaqueDesc* MatmulDesc;
typedef struct OpaqueLayout* MatrixLayout;
typedef struct OpaquePreference* Preference;

enum Status : int { kSuccess = 0, kNotSupported = 15 };
enum ComputeType : int { kCompute32F = 68 };
enum Operation : int { kOpN = 0, kOpT = 1 };
enum DescAttribute : int {
  kDescTransA = 3,
  kDescTransB = 4,
  kDescScalesA = 17,  // const float*, of the device
  kDescScalesB = 18,
  kDescScaleModeA = 31,  // ScaleMode
  kDescScaleModeB = 32,
};
// Of blocks of 128 along k, in a row or in a square: from cuBLAS 12.9 on.
enum ScaleMode : int32_t { kScaleRow128 = 4, kScaleSquare128 = 5 };
constexpr int64_t kScalesOfBlocks = 120900;  // the version
// Sums of split products: in one sequence, or in float32 in the workspace and then in a fixed order. The other two
// (in place, or in the output's type) round partial sums to bf16.
enum ReductionScheme : uint32_t { kReductionNone = 0, kReductionComputeType = 2 };
enum PreferenceAttribute : int {
  kPrefMaxWorkspaceBytes = 1,    // uint64_t
  kPrefReductionSchemeMask = 3,  // uint32_t
  kPrefMinAlignmentA = 5,        // uint32_t each
  kPrefMinAlignmentB = 6,
  kPrefMinAlignmentC = 7,
  kPrefMinAlignmentD = 8,
};

struct Algo {
  uint64_t data[8];
};

struct HeuristicResult {
  Algo algo;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

// name, result, arguments
#define MB_CUBLASLT_FUNCTIONS(X)                                                                                      \
  X(GetVersion, size_t, ())                                                                                           \
  X(GetStatusName, const char*, (Status))                                                                             \
  X(Create, Status, (Handle*))                                                                                        \
  X(Destroy, Status, (Handle))                                                                                        \
  X(MatmulDescCreate, Status, (MatmulDesc*, ComputeType, cudaDataType))                                               \
  X(MatmulDescDestroy, Status, (MatmulDesc))                                                                          \
  X(MatmulDescSetAttribute, Status, (MatmulDesc, DescAttribute, const void*, size_t))                                 \
  X(MatrixLayoutCreate, Status, (MatrixLayout*, cudaDataType, uint64_t, uint64_t, int64_t))                           \
  X(MatrixLayoutDestroy, Status, (MatrixLayout))                                                                      \
  X(MatmulPreferenceCreate, Status, (Preference*))                                                                    \
  X(MatmulPreferenceDestroy, Status, (Preference))                                                                    \
  X(MatmulPreferenceSetAttribute, Status, (Preference, PreferenceAttribute, const void*, size_t))                     \
  X(MatmulAlgoGetHeuristic, Status,                                                                                   \
    (Handle, MatmulDesc, MatrixLayout, MatrixLayout, MatrixLayout, MatrixLayout, Preference, int, HeuristicResult*,   \
     int*))                                                                                                           \
  X(Matmul, Status,                                                                                                   \
    (Handle, MatmulDesc, const void*, const void*, MatrixLayout, const void*, MatrixLayout, const void*, const void*, \
     MatrixLayout, void*, MatrixLayout, const Algo*, void*, size_t, cudaStream_t))

struct Functions {
#define MB_MEMBER(name, result, args) result(*name) args = nullptr;
  MB_CUBLASLT_FUNCTIONS(MB_MEMBER)
#undef MB_MEMBER
};

}  // namespace mb::cuda::lt
