// The part of cuDNN 9's backend C ABI that the attention uses: values that are the same since 9.0. The library is
// opened at run time, so its headers are not needed to build; abi_check.cc compares every line here with them where
// they are installed.
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

namespace mb::cuda::cudnn {

typedef struct OpaqueHandle* Handle;
typedef void* RawDescriptor;

enum Status : int { kSuccess = 0 };

enum DataType : int { kFloat = 0, kInt32 = 4, kBfloat16 = 9, kBoolean = 11 };

enum AttributeType : int {
  kTypeHandle = 0,
  kTypeDataType = 1,
  kTypeBoolean = 2,
  kTypeInt64 = 3,
  kTypeFloat = 4,
  kTypeVoidPtr = 6,
  kTypeHeurMode = 8,
  kTypePointwiseMode = 14,
  kTypeDescriptor = 15,
  kTypeReductionOperator = 18,
};

enum Attribute : int {
  kPointwiseMode = 0,
  kPointwiseMathPrec = 1,
  kPointwiseAxis = 9,
  kEngineHeurMode = 200,
  kEngineHeurGraph = 201,
  kEngineHeurResults = 202,
  kPlanEngineConfig = 401,
  kPlanWorkspaceSize = 402,
  kOpPointwiseDesc = 750,
  kOpPointwiseX = 751,
  kOpPointwiseB = 752,
  kOpPointwiseY = 753,
  kOpPointwiseAlpha1 = 754,
  kOpPointwiseAlpha2 = 755,
  kOpPointwiseT = 758,
  kGraphHandle = 800,
  kGraphOps = 801,
  kTensorAlignment = 900,
  kTensorDataType = 901,
  kTensorDimensions = 902,
  kTensorStrides = 903,
  kTensorUniqueId = 906,
  kTensorIsVirtual = 907,
  kTensorIsByValue = 908,
  kPackUniqueIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kMatmulCompType = 1500,
  kOpMatmulA = 1520,
  kOpMatmulB = 1521,
  kOpMatmulC = 1522,
  kOpMatmulDesc = 1523,
  kReductionOperator = 1600,
  kReductionCompType = 1601,
  kOpReductionX = 1610,
  kOpReductionY = 1611,
  kOpReductionDesc = 1612,
  kOpReshapeX = 2200,
  kOpReshapeY = 2201,
};

enum DescriptorType : int {
  kDescPointwise = 0,
  kDescEngineConfig = 3,
  kDescEngineHeur = 4,
  kDescPlan = 5,
  kDescOpPointwise = 13,
  kDescGraph = 15,
  kDescVariantPack = 16,
  kDescTensor = 17,
  kDescMatmul = 18,
  kDescOpMatmul = 19,
  kDescReduction = 21,
  kDescOpReduction = 22,
  kDescOpReshape = 31,
};

enum HeurMode : int { kHeurFallback = 2, kHeurA = 3 };

enum Pointwise : int {
  kAdd = 0,
  kMul = 1,
  kDiv = 6,
  kSub = 9,
  kExp = 13,
  kLog = 15,
  kIdentity = 21,
  kCmpGe = 303,
  kGenIndex = 501,
  kBinarySelect = 601,
};

enum Reduction : int { kReduceAdd = 0, kReduceMax = 3 };

// name, result, arguments
#define MB_CUDNN_FUNCTIONS(X)                                                                         \
  X(GetVersion, size_t, ())                                                                           \
  X(GetErrorString, const char*, (Status))                                                            \
  X(GetLastErrorString, void, (char*, size_t))                                                        \
  X(Create, Status, (Handle*))                                                                        \
  X(Destroy, Status, (Handle))                                                                        \
  X(SetStream, Status, (Handle, cudaStream_t))                                                        \
  X(BackendCreateDescriptor, Status, (DescriptorType, RawDescriptor*))                                \
  X(BackendDestroyDescriptor, Status, (RawDescriptor))                                                \
  X(BackendFinalize, Status, (RawDescriptor))                                                         \
  X(BackendSetAttribute, Status, (RawDescriptor, Attribute, AttributeType, int64_t, const void*))     \
  X(BackendGetAttribute, Status, (RawDescriptor, Attribute, AttributeType, int64_t, int64_t*, void*)) \
  X(BackendExecute, Status, (Handle, RawDescriptor, RawDescriptor))

struct Functions {
#define MB_MEMBER(name, result, args) result(*name) args = nullptr;
  MB_CUDNN_FUNCTIONS(MB_MEMBER)
#undef MB_MEMBER
};

}  // namespace mb::cuda::cudnn
