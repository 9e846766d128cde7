#include "cuda/ops/gemm.h"

#include <stdio.h>
#include <string.h>

#include "core/args/fp8.h"
#include "core/args/gemm.h"
#include "cuda/device/error.h"
#include "cuda/kernels/few_rows.h"
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

// Bytes are e4m3.
cudaDataType cuda_type(int32_t dtype) {
  return dtype == MB_U8 ? CUDA_R_8F_E4M3 : dtype == MB_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

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
  static_assert(sizeof(Key) == 7 * 8 + 14 * 4, "padding would make equal keys differ");
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
int Gemm::build(const Key& key, const Call& call, Plan* plan) {
  const CublasLt& lib = load_cublaslt();
  const cudaDataType input = cuda_type(key.input), output = cuda_type(key.output);
  MB_LT(lib.MatmulDescCreate(&plan->desc, lt::kCompute32F, CUDA_R_32F));
  const int32_t op_first = key.tb ? lt::kOpT : lt::kOpN, op_second = key.ta ? lt::kOpT : lt::kOpN;
  MB_LT(lib.MatmulDescSetAttribute(plan->desc, lt::kDescTransA, &op_first, sizeof op_first));
  MB_LT(lib.MatmulDescSetAttribute(plan->desc, lt::kDescTransB, &op_second, sizeof op_second));
  if (key.a_block != 0) MB_TRY(set_scales(key, call, plan->desc));
  const uint64_t m = key.m, n = key.n, k = key.k;
  MB_LT(lib.MatrixLayoutCreate(&plan->a, input, key.tb ? k : n, key.tb ? n : k, key.ldb));
  MB_LT(lib.MatrixLayoutCreate(&plan->b, input, key.ta ? m : k, key.ta ? k : m, key.lda));
  MB_LT(lib.MatrixLayoutCreate(&plan->c, output, n, m, key.ldc));
  MB_LT(lib.MatrixLayoutCreate(&plan->d, output, n, m, key.ldd));

  lt::Preference preference = nullptr;
  MB_LT(lib.MatmulPreferenceCreate(&preference));
  const int status = choose(key, call, preference, plan);
  lib.MatmulPreferenceDestroy(preference);
  return status;
}

int Gemm::choose(const Key& key, const Call& call, lt::Preference preference, Plan* plan) {
  const CublasLt& lib = load_cublaslt();
  const uint64_t workspace = kWorkspaceBytes;
  const uint32_t schemes = key.fixed_order ? lt::kReductionNone : lt::kReductionNone | lt::kReductionComputeType;
  const uint32_t first = key.align_b, second = key.align_a, c = key.align_c, d = key.align_d;
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMaxWorkspaceBytes, &workspace, sizeof workspace));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefReductionSchemeMask, &schemes, sizeof schemes));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentA, &first, sizeof first));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentB, &second, sizeof second));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentC, &c, sizeof c));
  MB_LT(lib.MatmulPreferenceSetAttribute(preference, lt::kPrefMinAlignmentD, &d, sizeof d));
  lt::HeuristicResult results[8] = {};
  int found = 0;
  const lt::Status status = lib.MatmulAlgoGetHeuristic(handle_, plan->desc, plan->a, plan->b, plan->c, plan->d,
                                                       preference, key.fixed_order ? 8 : 4, results, &found);
  if (key.fixed_order) return choose_in_order(call, results, status == lt::kSuccess ? found : 0, plan);
  for (int i = 0; status == lt::kSuccess && i < found; i++) {
    if (results[i].state != lt::kSuccess || results[i].workspace_bytes > kWorkspaceBytes) continue;
    plan->algo = results[i].algo;
    return MB_OK;
  }
  char blocks[96] = "";
  if (key.a_block != 0) {
    snprintf(blocks, sizeof blocks, ", in blocks of %d and %d rows, for which a GPU needs capability 9.0", key.a_block,
             key.b_block);
  }
  const auto name = [](int32_t dtype) { return dtype == MB_U8 ? "e4m3" : dtype_name(dtype); };
  return fail(
      status == lt::kSuccess || status == lt::kNotSupported ? MB_ERR_UNSUPPORTED : MB_ERR_LIBRARY,
      "cuBLASLt %s has no algorithm for gemm m=%lld n=%lld k=%lld ta=%d tb=%d lda=%lld ldb=%lld ldc=%lld ldd=%lld "
      "%s to %s, alignments %d %d %d %d%s (%s)",
      lib.version.c_str(), static_cast<long long>(key.m), static_cast<long long>(key.n), static_cast<long long>(key.k),
      key.ta, key.tb, static_cast<long long>(key.lda), static_cast<long long>(key.ldb), static_cast<long long>(key.ldc),
      static_cast<long long>(key.ldd), name(key.input), name(key.output), key.align_a, key.align_b, key.align_c,
      key.align_d, blocks, lib.GetStatusName(status));
}

// As cuBLAS names the operands: its first is our B.
int Gemm::set_scales(const Key& key, const Call& call, lt::MatmulDesc desc) {
  const CublasLt& lib = load_cublaslt();
  const auto mode = [](int32_t rows) { return rows == 1 ? lt::kScaleRow128 : lt::kScaleSquare128; };
  const lt::ScaleMode first = mode(key.b_block), second = mode(key.a_block);
  MB_LT(lib.MatmulDescSetAttribute(desc, lt::kDescScaleModeA, &first, sizeof first));
  MB_LT(lib.MatmulDescSetAttribute(desc, lt::kDescScaleModeB, &second, sizeof second));
  return point_at_scales(call, desc);
}

int Gemm::point_at_scales(const Call& call, lt::MatmulDesc desc) {
  const CublasLt& lib = load_cublaslt();
  const float *const first = call.b_scales.scales, *const second = call.a_scales.scales;
  MB_LT(lib.MatmulDescSetAttribute(desc, lt::kDescScalesA, &first, sizeof first));
  MB_LT(lib.MatmulDescSetAttribute(desc, lt::kDescScalesB, &second, sizeof second));
  return MB_OK;
}

int Gemm::multiply(const Plan& plan, const Call& call, const void* a) {
  const GemmArgs& z = call.args;
  if (plan.server == Plan::Server::few_rows) return kernels::few_rows(call.cuda_stream, kernels::product_of(z, a));
  if (plan.server == Plan::Server::in_order)
    return kernels::product_in_order(call.cuda_stream, kernels::product_of(z, a));
  if (call.a_scales.scales != nullptr) MB_TRY(point_at_scales(call, plan.desc));
  const float alpha = z.alpha, beta = z.beta;
  const void* const c = z.beta != 0 && z.c != z.d ? z.c : z.d;
  MB_LT(load_cublaslt().Matmul(handle_, plan.desc, &alpha, z.b, plan.a, a, plan.b, &beta, c, plan.c, z.d, plan.d,
                               &plan.algo, workspace_[call.stream], kWorkspaceBytes, call.cuda_stream));
  return MB_OK;
}

int Gemm::run(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_GEMM], t, nt, s, ns);
  const GemmArgs z = read_gemm(args);
  if (!args.ok() || z.m == 0 || z.n == 0) return args.status();
  if (z.output == MB_BF16 && z.input != MB_BF16) {
    return fail(MB_ERR_UNSUPPORTED, "gemm: products of float32 into bf16; on a GPU of bf16 alone");
  }
  if (z.fixed_order && z.output != MB_BF16) {
    return fail(MB_ERR_UNSUPPORTED, "gemm: a fixed order of sums into float32; on a GPU into bf16 alone");
  }
  return serve({stream, cuda_stream, z, {}, {}});
}

int Gemm::run_fp8(int stream, cudaStream_t cuda_stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_GEMM_FP8], t, nt, s, ns);
  const GemmFp8Args z = read_gemm_fp8(args);
  if (!args.ok() || z.m == 0 || z.n == 0) return args.status();
  const CublasLt& lib = load_cublaslt();
  MB_TRY(require_library(lib));
  if (lib.version_number < lt::kScalesOfBlocks) {
    return fail(MB_ERR_UNSUPPORTED, "gemm_fp8: cuBLASLt %s knows no scales of blocks; install 12.9 or newer",
                lib.version.c_str());
  }
  GemmArgs product = {};
  product.m = z.m;
  product.n = z.n;
  product.k = product.lda = product.ldb = z.k;
  product.ldc = product.ldd = z.n;
  product.tb = true;
  product.alpha = 1;
  product.beta = z.accumulate ? 1 : 0;
  product.input = MB_U8;
  product.output = z.output;
  product.a = z.a.codes;
  product.b = z.b.codes;
  product.c = z.accumulate ? z.d : nullptr;
  product.d = z.d;
  return serve({stream, cuda_stream, product, {z.a.scales, z.a.block}, {z.b.scales, z.b.block}});
}

int Gemm::serve(const Call& call) {
  const GemmArgs& z = call.args;
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
  key.has_beta = z.beta != 0;
  key.fixed_order = z.fixed_order;
  key.input = z.input;
  key.output = z.output;
  key.a_block = call.a_scales.rows;
  key.b_block = call.b_scales.rows;
  const bool separate_c = key.has_beta && z.c != z.d;
  if (!separate_c) key.ldc = key.ldd;  // C is D, or not read
  const void* c_ptr = separate_c ? z.c : z.d;
  key.in_place = !separate_c;
  key.align_a = alignment(z.a);
  key.align_b = alignment(z.b);
  key.align_c = alignment(c_ptr);
  key.align_d = alignment(z.d);

  MB_TRY(prepare(call.stream));
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    Plan plan;
    const int status = build(key, call, &plan);
    if (status != MB_OK) {
      destroy(&plan);
      return status;
    }
    found = plans_.emplace(key, plan).first;
  }
  return multiply(found->second, call, z.a);
}

}  // namespace mb::cuda
