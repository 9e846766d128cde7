#include "cuda/ops/attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "cuda/device/error.h"
#include "cuda/kernels/kernels.h"
#include "cuda/libs/libs.h"
#include "cuda/ops/attention_check.h"

namespace mb::cuda {
namespace {

// Versions whose numbers were compared with float32 attention by hand.
bool is_tested(int64_t version) { return version / 100 == 914 || version / 100 == 919; }

std::string head(const std::string& text) {
  return text.substr(0, 46);  // "mbridge (" + this + ")" fits a kernel name
}

// As the calls of a model have them: queries in one matrix with keys and values; these are in one of their own where
// they are other ranks' too, and so are the gradients of queries that see only such keys.
AttentionShape shape_of(const AttentionSizes& z, bool causal, bool backward, bool deterministic) {
  const int64_t q = z.hq * z.d, kv = z.hkv * z.d, all = q + 2 * kv, ldk = causal ? all : 2 * kv;
  const int64_t dq = !backward ? 0 : causal ? all : q, dk = backward ? ldk : 0;
  return {z.b, z.sq, z.skv, z.hq, z.hkv, z.d,  all,    ldk,      ldk,
          q,   dq,   dk,    dk,   z.skv, z.hq, causal, backward, deterministic};
}

AttentionShape shape_of(const AttentionArgs& z) {
  const bool backward = z.dq != nullptr;
  return {z.b,   z.sq,   z.skv,  z.hq,   z.hkv,     z.d,  z.ldq,         z.ldk,    z.ldv,
          z.ldo, z.lddq, z.lddk, z.lddv, z.kv_rows, z.hq, z.is_causal(), backward, z.deterministic};
}

// The deterministic backward keeps the scores of all its heads: beyond this much the heads take turns.
constexpr int64_t kMostScoreBytes = int64_t{3} << 29;

int64_t passes_of(const AttentionShape& z) {
  if (!z.backward || !z.deterministic) return 1;
  const int64_t bytes = z.b * z.hq * z.sq * z.skv * 2;
  int64_t passes = 1;
  while (passes < z.hkv && (z.hkv % passes != 0 || bytes / passes > kMostScoreBytes)) ++passes;
  return passes;
}

AttentionShape part_of(AttentionShape z, int64_t passes) {
  z.hq /= passes;
  z.hkv /= passes;
  return z;
}

void* moved(const void* base, int64_t elements, int64_t size) {
  return base == nullptr ? nullptr : const_cast<char*>(static_cast<const char*>(base)) + elements * size;
}

}  // namespace

Attention::~Attention() {
  servers_.clear();  // plans before the handle they were made with
  if (handle_) load_cudnn().Destroy(handle_);
}

std::unique_ptr<CudnnAttention> Attention::try_cudnn(cudaStream_t stream, const AttentionShape& shape,
                                                     std::string* reason) {
  const char* choice = getenv("MBRIDGE_ATTENTION");
  if (choice && strcmp(choice, "mbridge") == 0) {
    *reason = "MBRIDGE_ATTENTION=mbridge";
    return nullptr;
  }
  const Cudnn& lib = load_cudnn();
  if (!lib.loaded) {
    *reason = "no cuDNN: " + lib.reason;
    return nullptr;
  }
  if (shape.d > 128) {
    *reason = "head_dim " + std::to_string(shape.d) + " > 128";
    return nullptr;
  }
  // cudnn-frontend works around something here, and we do not know what.
  if (lib.version_number <= 91500 && (shape.sq % 128 != 0 || shape.skv % 128 != 0)) {
    *reason = "seq_length % 128 on cuDNN " + lib.version;
    return nullptr;
  }
  try {
    if (!handle_) cudnn_check(lib.Create(&handle_), "create handle");
    cudnn_check(lib.SetStream(handle_, stream), "set stream");
    if (!is_tested(lib.version_number)) {
      const SelfTest key = {shape.d, shape.deterministic, shape.sq == shape.skv, shape.causal};
      auto test = self_tests_.find(key);
      if (test == self_tests_.end()) {
        std::string failure;
        try {
          failure = check_attention(handle_, stream, shape);
        } catch (const CudnnError& error) {
          failure = error.what();
        }
        test = self_tests_.emplace(key, failure).first;
      }
      if (!test->second.empty()) {
        *reason = "cuDNN " + lib.version + " failed the self-test: " + test->second;
        return nullptr;
      }
    }
    return std::make_unique<CudnnAttention>(handle_, shape);
  } catch (const std::exception& error) {
    *reason = error.what();
    return nullptr;
  }
}

const Attention::Server& Attention::find(cudaStream_t stream, int dtype, const AttentionShape& shape) {
  const auto found = servers_.find({dtype, shape});
  if (found != servers_.end()) return found->second;
  Server server;
  std::string reason;
  server.passes = passes_of(shape);
  if (dtype == MB_BF16) server.cudnn = try_cudnn(stream, part_of(shape, server.passes), &reason);
  if (server.cudnn) {
    server.name = "cudnn " + load_cudnn().version;
  } else {
    server.name = reason.empty() ? "mbridge" : "mbridge (" + head(reason) + ")";
    if (!reason.empty() && shape.backward) {
      using ll = long long;
      fprintf(stderr,
              "attention of b=%lld sq=%lld skv=%lld hq=%lld hkv=%lld d=%lld uses the slower kernel of our own: %s\n",
              static_cast<ll>(shape.b), static_cast<ll>(shape.sq), static_cast<ll>(shape.skv),
              static_cast<ll>(shape.hq), static_cast<ll>(shape.hkv), static_cast<ll>(shape.d), reason.c_str());
    }
  }
  return servers_.emplace(std::make_pair(dtype, shape), std::move(server)).first->second;
}

int Attention::workspace(cudaStream_t stream, int dtype, const AttentionSizes& sizes, int64_t offset,
                         bool deterministic, int64_t* bytes, char kernel[64]) {
  MB_TRY(check_sizes(sizes));
  if (dtype != MB_F32 && dtype != MB_BF16) return fail(MB_ERR_UNSUPPORTED, "attention of %s", dtype_name(dtype));
  *bytes = kernels::attention_workspace_bytes(sizes);
  snprintf(kernel, 64, "mbridge");
  AttentionArgs args{};
  static_cast<AttentionSizes&>(args) = sizes;
  args.offset = offset;
  if (!args.is_causal() && !args.is_full()) return MB_OK;
  for (const bool backward : {false, true}) {
    const Server& server = find(stream, dtype, shape_of(sizes, args.is_causal(), backward, deterministic));
    if (server.cudnn) *bytes = std::max(*bytes, server.cudnn->workspace_bytes());
    snprintf(kernel, 64, "%s", server.name.c_str());
  }
  return MB_OK;
}

int Attention::run_cudnn(cudaStream_t stream, const AttentionArgs& z, OpArgs& call, int ws, bool* served) {
  *served = false;
  if (z.dtype != MB_BF16 || !(z.is_causal() || z.is_full())) return MB_OK;
  const Server& server = find(stream, z.dtype, shape_of(z));
  if (!server.cudnn) return MB_OK;
  *served = true;
  void* const workspace = call.scratch(ws, server.cudnn->workspace_bytes());
  if (!call.ok()) return call.status();
  const int64_t hq = z.hq / server.passes, hkv = z.hkv / server.passes;
  try {
    cudnn_check(load_cudnn().SetStream(handle_, stream), "set stream");
    for (int64_t pass = 0; pass < server.passes; ++pass) {
      const int64_t q = pass * hq * z.d, kv = pass * hkv * z.d;
      const AttentionBuffers buffers = {moved(z.q, q, 2),
                                        moved(z.k, kv, 2),
                                        moved(z.v, kv, 2),
                                        moved(z.o, q, 2),
                                        moved(z.lse, pass * hq * z.sq, 4),
                                        moved(z.d_o, q, 2),
                                        moved(z.dq, q, 2),
                                        moved(z.dk, kv, 2),
                                        moved(z.dv, kv, 2),
                                        workspace};
      server.cudnn->run(handle_, buffers, z.scale);
    }
    return MB_OK;
  } catch (const std::exception& error) {
    return fail(MB_ERR_LIBRARY, "attention: %s", error.what());
  }
}

int Attention::forward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs call(kOps[MB_OP_ATTENTION_FWD], t, nt, s, ns);
  const AttentionArgs z = read_attention_fwd(call);
  if (!call.ok()) return call.status();
  if (z.fixed_order && (z.dtype != MB_BF16 || z.d > 128)) {
    return fail(MB_ERR_UNSUPPORTED,
                "attention_fwd: a fixed order of sums of %s and d %lld; on a GPU bf16 and up to 128",
                dtype_name(z.dtype), static_cast<long long>(z.d));
  }
  bool served = false;
  if (!z.fixed_order) MB_TRY(run_cudnn(stream, z, call, 6, &served));
  return served ? MB_OK : kernels::op_attention_fwd(stream, t, nt, s, ns);
}

int Attention::backward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs call(kOps[MB_OP_ATTENTION_BWD], t, nt, s, ns);
  const AttentionArgs z = read_attention_bwd(call);
  if (!call.ok()) return call.status();
  bool served = false;
  MB_TRY(run_cudnn(stream, z, call, 10, &served));
  return served ? MB_OK : kernels::op_attention_bwd(stream, t, nt, s, ns);
}

}  // namespace mb::cuda
