// Compile-time check of abi_*.h against the libraries' own headers, of those that the include path has. Produces no
// code.
#include <stdint.h>

#include <type_traits>

#include "cuda/libs/abi_cublaslt.h"
#include "cuda/libs/abi_cudnn.h"
#include "cuda/libs/abi_nccl.h"

namespace {

// What a type is to the calling convention: enums are int, pointers are pointers, a struct by value is its size.
template <int Bytes>
struct ByValue {};
template <class T>
auto PlainOf() {
  if constexpr (std::is_pointer_v<T>) {
    return std::type_identity<void*>();
  } else if constexpr (std::is_enum_v<T>) {
    return std::type_identity<int>();
  } else if constexpr (std::is_class_v<T>) {
    return std::type_identity<ByValue<sizeof(T)>>();
  } else {
    return std::type_identity<T>();
  }
}
template <class T>
using Plain = typename decltype(PlainOf<T>())::type;
template <class F>
struct Call;
template <class R, class... A>
struct Call<R (*)(A...)> {
  using type = Plain<R> (*)(Plain<A>...);
};
template <class Ours, class Theirs>
constexpr bool SameCall = std::is_same_v<typename Call<Ours>::type, typename Call<Theirs>::type>;

}  // namespace

#define SAME_VALUE(ours, theirs) static_assert(static_cast<int64_t>(ours) == static_cast<int64_t>(theirs), #theirs);

#if __has_include(<nccl.h>)
#include <nccl.h>
namespace mb::cuda::nccl {
#define SAME_FUNCTION(name, result, args) static_assert(SameCall<result(*) args, decltype(&::nccl##name)>, #name);
MB_NCCL_FUNCTIONS(SAME_FUNCTION)
#undef SAME_FUNCTION
SAME_VALUE(kSuccess, ncclSuccess)
SAME_VALUE(kUnhandledCudaError, ncclUnhandledCudaError)
SAME_VALUE(kSystemError, ncclSystemError)
SAME_VALUE(kInternalError, ncclInternalError)
SAME_VALUE(kInvalidArgument, ncclInvalidArgument)
SAME_VALUE(kInvalidUsage, ncclInvalidUsage)
SAME_VALUE(kRemoteError, ncclRemoteError)
SAME_VALUE(kInProgress, ncclInProgress)
SAME_VALUE(kUint8, ncclUint8)
SAME_VALUE(kInt32, ncclInt32)
SAME_VALUE(kFloat32, ncclFloat32)
SAME_VALUE(kFloat64, ncclFloat64)
SAME_VALUE(kBfloat16, ncclBfloat16)
SAME_VALUE(kSum, ncclSum)
SAME_VALUE(kMax, ncclMax)
SAME_VALUE(kConfigMagic, NCCL_API_MAGIC)
SAME_VALUE(kUndefined, NCCL_CONFIG_UNDEF_INT)
SAME_VALUE(sizeof(UniqueId), sizeof(ncclUniqueId))
static_assert(NCCL_VERSION_CODE < kConfigVersion || sizeof(Config) <= sizeof(ncclConfig_t));
SAME_VALUE(offsetof(Config, magic), offsetof(ncclConfig_t, magic))
SAME_VALUE(offsetof(Config, version), offsetof(ncclConfig_t, version))
SAME_VALUE(offsetof(Config, blocking), offsetof(ncclConfig_t, blocking))
SAME_VALUE(offsetof(Config, split_share), offsetof(ncclConfig_t, splitShare))
#if NCCL_VERSION_CODE >= 22700
SAME_VALUE(offsetof(Config, traffic_class), offsetof(ncclConfig_t, trafficClass))
SAME_VALUE(offsetof(Config, comm_name), offsetof(ncclConfig_t, commName))
SAME_VALUE(offsetof(Config, nvls_ctas), offsetof(ncclConfig_t, nvlsCTAs))
#endif
}  // namespace mb::cuda::nccl
#else
#pragma message("nccl.h not found: abi_nccl.h is not checked")
#endif

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
namespace mb::cuda::lt {
#define SAME_FUNCTION(name, result, args) static_assert(SameCall<result(*) args, decltype(&::cublasLt##name)>, #name);
MB_CUBLASLT_FUNCTIONS(SAME_FUNCTION)
#undef SAME_FUNCTION
SAME_VALUE(kSuccess, CUBLAS_STATUS_SUCCESS)
SAME_VALUE(kNotSupported, CUBLAS_STATUS_NOT_SUPPORTED)
SAME_VALUE(kCompute32F, CUBLAS_COMPUTE_32F)
SAME_VALUE(kOpN, CUBLAS_OP_N)
SAME_VALUE(kOpT, CUBLAS_OP_T)
SAME_VALUE(kDescTransA, CUBLASLT_MATMUL_DESC_TRANSA)
SAME_VALUE(kDescTransB, CUBLASLT_MATMUL_DESC_TRANSB)
SAME_VALUE(kDescScalesA, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER)
SAME_VALUE(kDescScalesB, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER)
#if CUBLAS_VERSION >= 120900
SAME_VALUE(kDescScaleModeA, CUBLASLT_MATMUL_DESC_A_SCALE_MODE)
SAME_VALUE(kDescScaleModeB, CUBLASLT_MATMUL_DESC_B_SCALE_MODE)
SAME_VALUE(kScaleRow128, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F)
SAME_VALUE(kScaleSquare128, CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F)
SAME_VALUE(sizeof(ScaleMode), sizeof(cublasLtMatmulMatrixScale_t))
#endif
SAME_VALUE(kReductionNone, CUBLASLT_REDUCTION_SCHEME_NONE)
SAME_VALUE(kReductionComputeType, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
SAME_VALUE(kPrefMaxWorkspaceBytes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
SAME_VALUE(kPrefReductionSchemeMask, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
SAME_VALUE(kPrefMinAlignmentA, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
SAME_VALUE(kPrefMinAlignmentB, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES)
SAME_VALUE(kPrefMinAlignmentC, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES)
SAME_VALUE(kPrefMinAlignmentD, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
SAME_VALUE(sizeof(Algo), sizeof(cublasLtMatmulAlgo_t))
SAME_VALUE(sizeof(HeuristicResult), sizeof(cublasLtMatmulHeuristicResult_t))
SAME_VALUE(offsetof(HeuristicResult, workspace_bytes), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize))
SAME_VALUE(offsetof(HeuristicResult, state), offsetof(cublasLtMatmulHeuristicResult_t, state))
}  // namespace mb::cuda::lt
#else
#pragma message("cublasLt.h not found: abi_cublaslt.h is not checked")
#endif

#if __has_include(<cudnn_graph.h>)
#include <cudnn_graph.h>
namespace mb::cuda::cudnn {
#define SAME_FUNCTION(name, result, args) static_assert(SameCall<result(*) args, decltype(&::cudnn##name)>, #name);
MB_CUDNN_FUNCTIONS(SAME_FUNCTION)
#undef SAME_FUNCTION
SAME_VALUE(kSuccess, CUDNN_STATUS_SUCCESS)
SAME_VALUE(kFloat, CUDNN_DATA_FLOAT)
SAME_VALUE(kInt32, CUDNN_DATA_INT32)
SAME_VALUE(kBfloat16, CUDNN_DATA_BFLOAT16)
SAME_VALUE(kBoolean, CUDNN_DATA_BOOLEAN)
SAME_VALUE(kTypeHandle, CUDNN_TYPE_HANDLE)
SAME_VALUE(kTypeDataType, CUDNN_TYPE_DATA_TYPE)
SAME_VALUE(kTypeBoolean, CUDNN_TYPE_BOOLEAN)
SAME_VALUE(kTypeInt64, CUDNN_TYPE_INT64)
SAME_VALUE(kTypeFloat, CUDNN_TYPE_FLOAT)
SAME_VALUE(kTypeVoidPtr, CUDNN_TYPE_VOID_PTR)
SAME_VALUE(kTypeHeurMode, CUDNN_TYPE_HEUR_MODE)
SAME_VALUE(kTypePointwiseMode, CUDNN_TYPE_POINTWISE_MODE)
SAME_VALUE(kTypeDescriptor, CUDNN_TYPE_BACKEND_DESCRIPTOR)
SAME_VALUE(kTypeReductionOperator, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE)
SAME_VALUE(kPointwiseMode, CUDNN_ATTR_POINTWISE_MODE)
SAME_VALUE(kPointwiseMathPrec, CUDNN_ATTR_POINTWISE_MATH_PREC)
SAME_VALUE(kPointwiseAxis, CUDNN_ATTR_POINTWISE_AXIS)
SAME_VALUE(kEngineHeurMode, CUDNN_ATTR_ENGINEHEUR_MODE)
SAME_VALUE(kEngineHeurGraph, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)
SAME_VALUE(kEngineHeurResults, CUDNN_ATTR_ENGINEHEUR_RESULTS)
SAME_VALUE(kPlanEngineConfig, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
SAME_VALUE(kPlanWorkspaceSize, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
SAME_VALUE(kOpPointwiseDesc, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
SAME_VALUE(kOpPointwiseX, CUDNN_ATTR_OPERATION_POINTWISE_XDESC)
SAME_VALUE(kOpPointwiseB, CUDNN_ATTR_OPERATION_POINTWISE_BDESC)
SAME_VALUE(kOpPointwiseY, CUDNN_ATTR_OPERATION_POINTWISE_YDESC)
SAME_VALUE(kOpPointwiseAlpha1, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1)
SAME_VALUE(kOpPointwiseAlpha2, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2)
SAME_VALUE(kOpPointwiseT, CUDNN_ATTR_OPERATION_POINTWISE_TDESC)
SAME_VALUE(kGraphHandle, CUDNN_ATTR_OPERATIONGRAPH_HANDLE)
SAME_VALUE(kGraphOps, CUDNN_ATTR_OPERATIONGRAPH_OPS)
SAME_VALUE(kTensorAlignment, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)
SAME_VALUE(kTensorDataType, CUDNN_ATTR_TENSOR_DATA_TYPE)
SAME_VALUE(kTensorDimensions, CUDNN_ATTR_TENSOR_DIMENSIONS)
SAME_VALUE(kTensorStrides, CUDNN_ATTR_TENSOR_STRIDES)
SAME_VALUE(kTensorUniqueId, CUDNN_ATTR_TENSOR_UNIQUE_ID)
SAME_VALUE(kTensorIsVirtual, CUDNN_ATTR_TENSOR_IS_VIRTUAL)
SAME_VALUE(kTensorIsByValue, CUDNN_ATTR_TENSOR_IS_BY_VALUE)
SAME_VALUE(kPackUniqueIds, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)
SAME_VALUE(kPackPointers, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)
SAME_VALUE(kPackWorkspace, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
SAME_VALUE(kMatmulCompType, CUDNN_ATTR_MATMUL_COMP_TYPE)
SAME_VALUE(kOpMatmulA, CUDNN_ATTR_OPERATION_MATMUL_ADESC)
SAME_VALUE(kOpMatmulB, CUDNN_ATTR_OPERATION_MATMUL_BDESC)
SAME_VALUE(kOpMatmulC, CUDNN_ATTR_OPERATION_MATMUL_CDESC)
SAME_VALUE(kOpMatmulDesc, CUDNN_ATTR_OPERATION_MATMUL_DESC)
SAME_VALUE(kReductionOperator, CUDNN_ATTR_REDUCTION_OPERATOR)
SAME_VALUE(kReductionCompType, CUDNN_ATTR_REDUCTION_COMP_TYPE)
SAME_VALUE(kOpReductionX, CUDNN_ATTR_OPERATION_REDUCTION_XDESC)
SAME_VALUE(kOpReductionY, CUDNN_ATTR_OPERATION_REDUCTION_YDESC)
SAME_VALUE(kOpReductionDesc, CUDNN_ATTR_OPERATION_REDUCTION_DESC)
SAME_VALUE(kOpReshapeX, CUDNN_ATTR_OPERATION_RESHAPE_XDESC)
SAME_VALUE(kOpReshapeY, CUDNN_ATTR_OPERATION_RESHAPE_YDESC)
SAME_VALUE(kDescPointwise, CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
SAME_VALUE(kDescEngineConfig, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
SAME_VALUE(kDescEngineHeur, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
SAME_VALUE(kDescPlan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
SAME_VALUE(kDescOpPointwise, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
SAME_VALUE(kDescGraph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
SAME_VALUE(kDescVariantPack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
SAME_VALUE(kDescTensor, CUDNN_BACKEND_TENSOR_DESCRIPTOR)
SAME_VALUE(kDescMatmul, CUDNN_BACKEND_MATMUL_DESCRIPTOR)
SAME_VALUE(kDescOpMatmul, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
SAME_VALUE(kDescReduction, CUDNN_BACKEND_REDUCTION_DESCRIPTOR)
SAME_VALUE(kDescOpReduction, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
SAME_VALUE(kDescOpReshape, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
SAME_VALUE(kHeurFallback, CUDNN_HEUR_MODE_FALLBACK)
SAME_VALUE(kHeurA, CUDNN_HEUR_MODE_A)
SAME_VALUE(kAdd, CUDNN_POINTWISE_ADD)
SAME_VALUE(kMul, CUDNN_POINTWISE_MUL)
SAME_VALUE(kDiv, CUDNN_POINTWISE_DIV)
SAME_VALUE(kSub, CUDNN_POINTWISE_SUB)
SAME_VALUE(kExp, CUDNN_POINTWISE_EXP)
SAME_VALUE(kLog, CUDNN_POINTWISE_LOG)
SAME_VALUE(kIdentity, CUDNN_POINTWISE_IDENTITY)
SAME_VALUE(kCmpGe, CUDNN_POINTWISE_CMP_GE)
SAME_VALUE(kGenIndex, CUDNN_POINTWISE_GEN_INDEX)
SAME_VALUE(kBinarySelect, CUDNN_POINTWISE_BINARY_SELECT)
SAME_VALUE(kReduceAdd, CUDNN_REDUCE_TENSOR_ADD)
SAME_VALUE(kReduceMax, CUDNN_REDUCE_TENSOR_MAX)
}  // namespace mb::cuda::cudnn
#else
#pragma message("cudnn_graph.h not found: abi_cudnn.h is not checked")
#endif
