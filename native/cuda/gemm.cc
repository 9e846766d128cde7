#include "gemm.h"

#include <string.h>

#include <algorithm>

#include "../core/dtype.h"
#include "error.h"
#include "libs.h"

namespace mbcuda {
namespace {

#define MB_LT(call)                                                         \
  do {                                                                      \
    const lt::Status mb_lt_status_ = (call);                                \
    if (mb_lt_status_ != lt::kSuccess) return LtFail(mb_lt_status_, #call); \
  } while (0)

int LtFail(lt::Status status, const char* what) {
  return Fail(status == lt::kNotSupported ? MB_ERR_UNSUPPORTED : MB_ERR_LIBRARY, "cuBLASLt %s: %s: %s",
              LoadCublasLt().version.c_str(), what, LoadCublasLt().GetStatusName(status));
}

cudaDataType CudaType(int32_t dtype) { return dtype == MB_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

// What the heuristic may assume about an address. Two classes only, so that equal layers at different offsets of an
// arena get the same algorithm.
int32_t Alignment(const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  if (address % 256 == 0) return 256;
  if (address % 16 == 0) return 16;
  return static_cast<int32_t>(address & (~address + 1));
}

int CheckMatrix(const char* name, const mb_buf& buf, int64_t rows, int64_t cols, int64_t ld) {
  const int64_t element = mb::dtype_size(buf.dtype);
  if (ld < cols) {
    return Fail(MB_ERR_ARGUMENT, "gemm: leading dimension %lld of %s is less than its %lld columns",
                static_cast<long long>(ld), name, static_cast<long long>(cols));
  }
  const int64_t needed = ((rows - 1) * ld + cols) * element;
  if (buf.bytes < needed) {
    return Fail(MB_ERR_ARGUMENT, "gemm: %s has %lld bytes, [%lld, %lld] with leading dimension %lld needs %lld", name,
                static_cast<long long>(buf.bytes), static_cast<long long>(rows), static_cast<long long>(cols),
                static_cast<long long>(ld), static_cast<long long>(needed));
  }
  if (reinterpret_cast<uintptr_t>(buf.ptr) % element != 0) {
    return Fail(MB_ERR_ARGUMENT, "gemm: %s is not aligned to its elements of %lld bytes", name,
                static_cast<long long>(element));
  }
  return MB_OK;
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
  for (auto& entry : plans_) Destroy(&entry.second);
  for (void* workspace : workspace_) {
    if (workspace) cudaFree(workspace);
  }
  if (handle_) LoadCublasLt().Destroy(handle_);
}

int Gemm::Prepare(int stream) {
  const CublasLt& lib = LoadCublasLt();
  if (!handle_) {
    MB_TRY(RequireLibrary(lib));
    MB_LT(lib.Create(&handle_));
  }
  if (!workspace_[stream]) MB_CUDA(cudaMalloc(&workspace_[stream], kWorkspaceBytes));
  return MB_OK;
}

void Gemm::Destroy(Plan* plan) {
  const CublasLt& lib = LoadCublasLt();
  for (lt::MatrixLayout layout : {plan->a, plan->b, plan->c, plan->d}) {
    if (layout) lib.MatrixLayoutDestroy(layout);
  }
  if (plan->desc) lib.MatmulDescDestroy(plan->desc);
  *plan = {};
}

// cuBLAS is column-major: our row-major X is its X^T, so D = op(A) op(B) is asked for as D^T = op(B)^T op(A)^T, with B
// as its first operand. A row-major [r, c] with leading dimension ld is its [c, r] with the same ld.
int Gemm::Build(const Key& key, Plan* plan) {
  const CublasLt& lib = LoadCublasLt();
  const cudaDataType input = CudaType(key.input), output = CudaType(key.output);
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
  const int status = Choose(key, preference, plan);
  lib.MatmulPreferenceDestroy(preference);
  return status;
}

int Gemm::Choose(const Key& key, lt::Preference preference, Plan* plan) {
  const CublasLt& lib = LoadCublasLt();
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
  return Fail(
      status == lt::kSuccess || status == lt::kNotSupported ? MB_ERR_UNSUPPORTED : MB_ERR_LIBRARY,
      "cuBLASLt %s has no algorithm for gemm m=%lld n=%lld k=%lld ta=%d tb=%d lda=%lld ldb=%lld ldc=%lld ldd=%lld "
      "%s to %s, alignments %d %d %d %d (%s)",
      lib.version.c_str(), static_cast<long long>(key.m), static_cast<long long>(key.n), static_cast<long long>(key.k),
      key.ta, key.tb, static_cast<long long>(key.lda), static_cast<long long>(key.ldb), static_cast<long long>(key.ldc),
      static_cast<long long>(key.ldd), key.input == MB_BF16 ? "bf16" : "f32", key.output == MB_BF16 ? "bf16" : "f32",
      key.align_a, key.align_b, key.align_c, key.align_d, lib.GetStatusName(status));
}

int Gemm::Run(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns) {
  if (nt != 4 || ns != 11) {
    return Fail(MB_ERR_ARGUMENT, "gemm takes 4 tensors and 11 scalars, not %d and %d", nt, ns);
  }
  const mb_buf &a = t[0], &b = t[1], &c = t[2], &d = t[3];
  Key key = {};
  static const char* const kNames[] = {"m", "n", "k", "ta", "tb", "lda", "ldb", "ldc", "ldd"};
  for (int i = 0; i < 9; ++i) {
    const bool flag = i == 3 || i == 4;
    if (s[i] >= 0 && s[i] == static_cast<double>(static_cast<int64_t>(s[i])) && !(flag && s[i] > 1)) continue;
    return Fail(MB_ERR_ARGUMENT, "gemm: %s is %g, expected %s", kNames[i], s[i],
                flag ? "0 or 1" : "an integer of at least 0");
  }
  key.m = static_cast<int64_t>(s[0]);
  key.n = static_cast<int64_t>(s[1]);
  key.k = static_cast<int64_t>(s[2]);
  key.ta = s[3] != 0;
  key.tb = s[4] != 0;
  key.lda = static_cast<int64_t>(s[5]);
  key.ldb = static_cast<int64_t>(s[6]);
  key.ldc = static_cast<int64_t>(s[7]);
  key.ldd = static_cast<int64_t>(s[8]);
  const float alpha = static_cast<float>(s[9]), beta = static_cast<float>(s[10]);
  key.has_beta = beta != 0;
  key.input = a.dtype;
  key.output = d.dtype;
  if (key.m < 0 || key.n < 0 || key.k <= 0) {
    return Fail(MB_ERR_ARGUMENT, "gemm: m=%g n=%g k=%g", s[0], s[1], s[2]);
  }
  if (key.m == 0 || key.n == 0) return MB_OK;
  if (!a.ptr || !b.ptr || !d.ptr) return Fail(MB_ERR_ARGUMENT, "gemm: A, B and D must be given");
  const bool types = (a.dtype == MB_F32 && b.dtype == MB_F32 && d.dtype == MB_F32) ||
                     (a.dtype == MB_BF16 && b.dtype == MB_BF16 && (d.dtype == MB_F32 || d.dtype == MB_BF16));
  if (!types) {
    return Fail(MB_ERR_ARGUMENT, "gemm: dtypes %d, %d -> %d; there are f32, f32 -> f32 and bf16, bf16 -> bf16 or f32",
                a.dtype, b.dtype, d.dtype);
  }
  if (key.has_beta && !c.ptr) return Fail(MB_ERR_ARGUMENT, "gemm: beta is %g but there is no C", s[10]);
  const bool separate_c = key.has_beta && c.ptr != d.ptr;
  if (key.has_beta) {
    if (c.dtype != d.dtype) return Fail(MB_ERR_ARGUMENT, "gemm: C has dtype %d, D has %d", c.dtype, d.dtype);
    MB_TRY(CheckMatrix("C", c, key.m, key.n, key.ldc));
    if (!separate_c && key.ldc != key.ldd) {
      return Fail(MB_ERR_ARGUMENT, "gemm: C is D, but their leading dimensions differ");
    }
  }
  MB_TRY(CheckMatrix("A", a, key.ta ? key.k : key.m, key.ta ? key.m : key.k, key.lda));
  MB_TRY(CheckMatrix("B", b, key.tb ? key.n : key.k, key.tb ? key.k : key.n, key.ldb));
  MB_TRY(CheckMatrix("D", d, key.m, key.n, key.ldd));
  if (!separate_c) key.ldc = key.ldd;  // C is D, or not read
  const void* c_ptr = separate_c ? c.ptr : d.ptr;
  key.in_place = !separate_c;
  key.align_a = Alignment(a.ptr);
  key.align_b = Alignment(b.ptr);
  key.align_c = Alignment(c_ptr);
  key.align_d = Alignment(d.ptr);

  MB_TRY(Prepare(stream));
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    Plan plan;
    const int status = Build(key, &plan);
    if (status != MB_OK) {
      Destroy(&plan);
      return status;
    }
    found = plans_.emplace(key, plan).first;
  }
  const Plan& plan = found->second;
  const CublasLt& lib = LoadCublasLt();
  MB_LT(lib.Matmul(handle_, plan.desc, &alpha, b.ptr, plan.a, a.ptr, plan.b, &beta, c_ptr, plan.c, d.ptr, plan.d,
                   &plan.algo, workspace_[stream], kWorkspaceBytes, cuda_stream));
  return MB_OK;
}

}  // namespace mbcuda
