#include "cuda/ops/gemm.h"

#include <string.h>

#include <algorithm>

#include "core/args/gemm.h"
#include "cuda/device/error.h"
#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

#define MB_LT(call)                                                          \
  do {                                                                       \
    const lt::Status mb_lt_status_ = (call);                                 \
    if (mb_lt_status_ != lt::kSuccess) return lt_fail(mb_lt_status_, #call); \
  } while (0)

int lt_fail(lt::Status status, const char* what) {
  return fail(status == lt::kNotSupported ? MB_ERR_UNSUPPORTED : MB_ERR_LIBRARY, "cuBLASLt %s: %s: %s",
              load_cublaslt().version.c_str(), what, load_cublaslt().GetStatusName(status));
}

cudaDataType cuda_type(int32_t dtype) { return dtype == MB_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

// What the heuristic may assume about an address. Two classes only, so that equal layers at different offsets of an
// arena get the same algorithm.
int32_t alignment(const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  if (address % 256 == 0) return 256;
  if (address % 16 == 0) return 16;
  return static_cast<int32_t>(address & (~address + 1));
}

}  // namespace

bool Gemm::Key::operator==(const Key& other) const { return memcmp(this, &other, sizeof(Key)) == 0; }

size_t Gemm::Hash::operator()(const Key& key) const {
  static_assert(sizeof(Key) == 7 * 8 + 10 * 4, "padding would make equal keys differ");
  uint64_t words[sizeof(Key) / 8];
  memcpy(words, &key, sizeof words);
  uint64_t hash = 0xcbf29ce484222325u;
  for (uint64_t word : words) hash = (hash ^ word) * 0x9e3779b97f4a7c15u ^ hash >> 29;
  return hash;
}

Gemm::~Gemm() {
  for (auto& entry : plans_) destroy(&entry.second);
  for (void* workspace : workspace_) {
    if (workspace) cudaFree(workspace);
  }
  if (handle_) load_cublaslt().Destroy(handle_);
}

int Gemm::prepare(int stream) {
  const CublasLt& lib = load_cublaslt();
  if (!handle_) {
    MB_TRY(require_library(lib));
    MB_LT(lib.Create(&handle_));
  }
  if (!workspace_[stream]) MB_CUDA(cudaMalloc(&workspace_[stream], kWorkspaceBytes));
  return MB_OK;
}

void Gemm::destroy(Plan* plan) {
  const CublasLt& lib = load_cublaslt();
  for (lt::MatrixLayout layout : {plan->a, plan->b, plan->c, plan->d}) {
    if (layout) lib.MatrixLayoutDestroy(layout);
  }
  if (plan->desc) lib.MatmulDescDestroy(plan->desc);
  *plan = {};
}

// cuBLAS is column-major: our row-major X is its X^T, so D = op(A) op(B) is asked for as D^T = op(B)^T op(A)^T, with B
// as its first operand. A row-major [r, c] with leading dimension ld is its [c, r] with the same ld.
int Gemm::build(const Key& key, Plan* plan) {
  const CublasLt& lib = load_cublaslt();
  const cudaDataType input = cuda_type(key.input), output = cuda_type(key.output);
  MB_LT(lib.MatmulDescCreate(&plan->desc, lt::kCompute32F, CUDA_R_32F));
  const int32_t op_first = key.tb ? lt::kOpT : lt::kOpN, op_second = key.ta ? lt::kOpT : lt::kOpN;
  MB_LT(lib.MatmulDescSetAttribute(plan->desc, lt::kDescTransA, &op_first, sizeof op_first));
  MB_LT(lib.MatmulDescSetAttribute(plan->desc, lt::kDescTransB, &op_second, sizeof op_second));
  const uint64_t m = key.m, n = key.n, k = key.k;
  MB_LT(lib.MatrixLayoutCreate(&plan->a, input, key.tb ? k : n, key.tb ? n : k, key.ldb));
  MB_LT(lib.MatrixLayoutCreate(&plan->b, input, key.ta ? m : k, key.ta ? k : m, key.lda));
  MB_LT(lib.MatrixLayoutCreate(&plan->c, output, n, m, key.ldc));
  MB_LT(lib.MatrixLayoutCreate(&plan->d, output, n, m, key.ldd));

  lt::Preference preference = nullptr;
  MB_LT(lib.MatmulPreferenceCreate(&preference));
  const int status = choose(key, preference, plan);
  lib.MatmulPreferenceDestroy(preference);
  return status;
}

int Gemm::choose(const Key& key, lt::Preference preference, Plan* plan) {
  const CublasLt& lib = load_cublaslt();
  const uint64_t workspace = kWorkspaceBytes;
  const uint32_t schemes = lt::kReductionNone | lt::kReductionComputeType;
  const uint32_t first = key.align_b, second = key.align_a, c = key.align_c, d = key.align_d;
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMaxWorkspaceBytes, &workspace, sizeof workspace));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefReductionSchemeMask, &schemes, sizeof schemes));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentA, &first, sizeof first));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentB, &second, sizeof second));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentC, &c, sizeof c));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentD, &d, sizeof d));
  lt::HeuristicResult results[4] = {};
  int found = 0;
  const lt::Status status = lib.MatmulAlgoGetHeuristic(handle_, plan->desc, plan->a, plan->b, plan->c, plan->d,
                                                       preference, 4, results, &found);
  for (int i = 0; status == lt::kSuccess && i < found; i++) {
    if (results[i].state != lt::kSuccess || results[i].workspace_bytes > kWorkspaceBytes) continue;
    plan->algo = results[i].algo;
    return MB_OK;
  }
  return fail(
      status == lt::kSuccess || status == lt::kNotSupported ? MB_ERR_UNSUPPORTED : MB_ERR_LIBRARY,
      "cuBLASLt %s has no algorithm for gemm m=%lld n=%lld k=%lld ta=%d tb=%d lda=%lld ldb=%lld ldc=%lld ldd=%lld "
      "%s to %s, alignments %d %d %d %d (%s)",
      lib.version.c_str(), static_cast<long long>(key.m), static_cast<long long>(key.n), static_cast<long long>(key.k),
      key.ta, key.tb, static_cast<long long>(key.lda), static_cast<long long>(key.ldb), static_cast<long long>(key.ldc),
      static_cast<long long>(key.ldd), key.input == MB_BF16 ? "bf16" : "f32", key.output == MB_BF16 ? "bf16" : "f32",
      key.align_a, key.align_b, key.align_c, key.align_d, lib.GetStatusName(status));
}

int Gemm::run(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_GEMM], t, nt, s, ns);
  const GemmArgs z = read_gemm(args);
  if (!args.ok() || z.m == 0 || z.n == 0) return args.status();
  Key key = {};
  key.m = z.m;
  key.n = z.n;
  key.k = z.k;
  key.ta = z.ta;
  key.tb = z.tb;
  key.lda = z.lda;
  key.ldb = z.ldb;
  key.ldc = z.ldc;
  key.ldd = z.ldd;
  const float alpha = z.alpha, beta = z.beta;
  key.has_beta = beta != 0;
  key.input = z.input;
  key.output = z.output;
  const bool separate_c = key.has_beta && z.c != z.d;
  if (!separate_c) key.ldc = key.ldd;  // C is D, or not read
  const void* c_ptr = separate_c ? z.c : z.d;
  key.in_place = !separate_c;
  key.align_a = alignment(z.a);
  key.align_b = alignment(z.b);
  key.align_c = alignment(c_ptr);
  key.align_d = alignment(z.d);

  MB_TRY(prepare(stream));
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    Plan plan;
    const int status = build(key, &plan);
    if (status != MB_OK) {
      destroy(&plan);
      return status;
    }
    found = plans_.emplace(key, plan).first;
  }
  const Plan& plan = found->second;
  const CublasLt& lib = load_cublaslt();
  MB_LT(lib.Matmul(handle_, plan.desc, &alpha, z.b, plan.a, z.a, plan.b, &beta, c_ptr, plan.c, z.d, plan.d, &plan.algo,
                   workspace_[stream], kWorkspaceBytes, cuda_stream));
  return MB_OK;
}

}  // namespace mb::cuda
