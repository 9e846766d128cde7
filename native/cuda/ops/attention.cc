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
  if (lib.version_number <= 91500 && shape.s % 128 != 0) {
    *reason = "seq_length % 128 on cuDNN " + lib.version;
    return nullptr;
  }
  try {
    if (!handle_) cudnn_check(lib.Create(&handle_), "create handle");
    cudnn_check(lib.SetStream(handle_, stream), "set stream");
    if (!is_tested(lib.version_number)) {
      auto test = self_tests_.find({shape.d, shape.deterministic});
      if (test == self_tests_.end()) {
        std::string failure;
        try {
          failure = check_attention(handle_, stream, shape.d, shape.deterministic);
        } catch (const CudnnError& error) {
          failure = error.what();
        }
        test = self_tests_.emplace(std::make_pair(shape.d, shape.deterministic), failure).first;
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
  const Key key = {dtype, shape.b, shape.s, shape.hq, shape.hkv, shape.d, shape.deterministic};
  const auto found = servers_.find(key);
  if (found != servers_.end()) return found->second;
  Server server;
  std::string reason;
  if (dtype == MB_BF16) server.cudnn = try_cudnn(stream, shape, &reason);
  if (server.cudnn) {
    server.name = "cudnn " + load_cudnn().version;
  } else {
    server.name = reason.empty() ? "mbridge" : "mbridge (" + head(reason) + ")";
    if (!reason.empty()) {
      fprintf(stderr, "attention of b=%lld s=%lld hq=%lld hkv=%lld d=%lld uses the slower kernel of our own: %s\n",
              static_cast<long long>(shape.b), static_cast<long long>(shape.s), static_cast<long long>(shape.hq),
              static_cast<long long>(shape.hkv), static_cast<long long>(shape.d), reason.c_str());
    }
  }
  return servers_.emplace(key, std::move(server)).first->second;
}

int Attention::workspace(cudaStream_t stream, int dtype, const AttentionSizes& sizes, bool deterministic,
                         int64_t* bytes, char kernel[64]) {
  MB_TRY(check_sizes(sizes));
  if (dtype != MB_F32 && dtype != MB_BF16) return fail(MB_ERR_UNSUPPORTED, "attention of %s", dtype_name(dtype));
  *bytes = kernels::attention_workspace_bytes(sizes);
  snprintf(kernel, 64, "mbridge");
  if (sizes.sq != sizes.skv) return MB_OK;
  const Server& server = find(stream, dtype, {sizes.b, sizes.sq, sizes.hq, sizes.hkv, sizes.d, deterministic});
  if (server.cudnn) *bytes = std::max(*bytes, server.cudnn->workspace_bytes());
  snprintf(kernel, 64, "%s", server.name.c_str());
  return MB_OK;
}

int Attention::run_cudnn(cudaStream_t stream, const AttentionArgs& z, OpArgs& call, int ws, bool* served) {
  *served = false;
  if (z.dtype != MB_BF16 || !z.is_plain()) return MB_OK;
  const Server& server = find(stream, z.dtype, {z.b, z.sq, z.hq, z.hkv, z.d, z.deterministic});
  if (!server.cudnn) return MB_OK;
  *served = true;
  AttentionBuffers buffers = {};
  buffers.qkv = const_cast<void*>(z.q);
  buffers.o = z.o;
  buffers.lse = z.lse;
  buffers.dout = const_cast<void*>(z.d_o);
  buffers.dqkv = z.dq;
  buffers.workspace = call.scratch(ws, server.cudnn->workspace_bytes());
  if (!call.ok()) return call.status();
  try {
    cudnn_check(load_cudnn().SetStream(handle_, stream), "set stream");
    z.dq == nullptr ? server.cudnn->forward(handle_, buffers, z.scale)
                    : server.cudnn->backward(handle_, buffers, z.scale);
    return MB_OK;
  } catch (const std::exception& error) {
    return fail(MB_ERR_LIBRARY, "attention: %s", error.what());
  }
}

int Attention::forward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs call(kOps[MB_OP_ATTENTION_FWD], t, nt, s, ns);
  const AttentionArgs z = read_attention_fwd(call);
  if (!call.ok()) return call.status();
  bool served = false;
  MB_TRY(run_cudnn(stream, z, call, 6, &served));
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
