#include "attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention_check.h"
#include "error.h"
#include "kernels/kernels.h"
#include "libs.h"

namespace mbcuda {
namespace {

// Versions whose numbers were compared with float32 attention by hand.
bool IsTested(int64_t version) { return version / 100 == 914 || version / 100 == 919; }

std::string Head(const std::string& text) {
  return text.substr(0, 46);  // "mbridge (" + this + ")" fits a kernel name
}

int CheckBytes(const char* name, const mb_buf& buf, int64_t needed, int alignment) {
  if (!buf.ptr && needed > 0) return Fail(MB_ERR_ARGUMENT, "attention: %s is absent", name);
  if (buf.bytes < needed) {
    return Fail(MB_ERR_ARGUMENT, "attention: %s has %lld bytes, needs %lld", name, static_cast<long long>(buf.bytes),
                static_cast<long long>(needed));
  }
  if (reinterpret_cast<uintptr_t>(buf.ptr) % alignment != 0) {
    return Fail(MB_ERR_ARGUMENT, "attention: %s is not aligned to %d bytes", name, alignment);
  }
  return MB_OK;
}

}  // namespace

Attention::~Attention() {
  servers_.clear();  // plans before the handle they were made with
  if (handle_) LoadCudnn().Destroy(handle_);
}

std::unique_ptr<CudnnAttention> Attention::TryCudnn(cudaStream_t stream, const AttentionShape& shape,
                                                    std::string* reason) {
  const char* choice = getenv("MBRIDGE_ATTENTION");
  if (choice && strcmp(choice, "mbridge") == 0) {
    *reason = "MBRIDGE_ATTENTION=mbridge";
    return nullptr;
  }
  const Cudnn& lib = LoadCudnn();
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
    if (!handle_) CudnnCheck(lib.Create(&handle_), "create handle");
    CudnnCheck(lib.SetStream(handle_, stream), "set stream");
    if (!IsTested(lib.version_number)) {
      auto test = self_tests_.find({shape.d, shape.deterministic});
      if (test == self_tests_.end()) {
        std::string failure;
        try {
          failure = CheckAttention(handle_, stream, shape.d, shape.deterministic);
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

int Attention::Find(cudaStream_t stream, int dtype, const AttentionShape& shape, const Server** out) {
  const Key key = {dtype, shape.b, shape.s, shape.hq, shape.hkv, shape.d, shape.deterministic};
  auto found = servers_.find(key);
  if (found != servers_.end()) {
    *out = &found->second;
    return MB_OK;
  }
  if (shape.b <= 0 || shape.s <= 0 || shape.hq <= 0 || shape.hkv <= 0 || shape.hq % shape.hkv != 0 || shape.d <= 0 ||
      shape.d % 8 != 0) {
    return Fail(MB_ERR_ARGUMENT,
                "attention: b=%lld s=%lld hq=%lld hkv=%lld d=%lld: sizes must be positive, hq a multiple of hkv, d a "
                "multiple of 8",
                static_cast<long long>(shape.b), static_cast<long long>(shape.s), static_cast<long long>(shape.hq),
                static_cast<long long>(shape.hkv), static_cast<long long>(shape.d));
  }
  Server server;
  std::string reason;
  if (dtype == MB_BF16) server.cudnn = TryCudnn(stream, shape, &reason);
  if (server.cudnn) {
    server.name = "cudnn " + LoadCudnn().version;
    server.workspace_bytes = server.cudnn->workspace_bytes();
  } else {
    server.workspace_bytes = mbk_attention_workspace(dtype, shape.b, shape.s, shape.hq, shape.hkv, shape.d);
    if (server.workspace_bytes < 0) return MB_ERR_UNSUPPORTED;
    server.name = reason.empty() ? "mbridge" : "mbridge (" + Head(reason) + ")";
    if (!reason.empty()) {
      fprintf(stderr, "attention of b=%lld s=%lld hq=%lld hkv=%lld d=%lld uses the slower kernel of our own: %s\n",
              static_cast<long long>(shape.b), static_cast<long long>(shape.s), static_cast<long long>(shape.hq),
              static_cast<long long>(shape.hkv), static_cast<long long>(shape.d), reason.c_str());
    }
  }
  *out = &servers_.emplace(key, std::move(server)).first->second;
  return MB_OK;
}

int Attention::Workspace(cudaStream_t stream, int dtype, const AttentionShape& shape, int64_t* bytes, char kernel[64]) {
  const Server* server = nullptr;
  MB_TRY(Find(stream, dtype, shape, &server));
  *bytes = server->workspace_bytes;
  snprintf(kernel, 64, "%s", server->name.c_str());
  return MB_OK;
}

int Attention::Run(bool forward, cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  const int tensors = forward ? 4 : 6;
  if (nt != tensors || ns != 7) {
    return Fail(MB_ERR_ARGUMENT, "attention takes %d tensors and 7 scalars, not %d and %d", tensors, nt, ns);
  }
  const AttentionShape shape = {static_cast<int64_t>(s[0]), static_cast<int64_t>(s[1]), static_cast<int64_t>(s[2]),
                                static_cast<int64_t>(s[3]), static_cast<int64_t>(s[4]), s[6] != 0};
  const Server* server = nullptr;
  MB_TRY(Find(stream, t[0].dtype, shape, &server));
  if (!server->cudnn) {
    return forward ? mbk_attention_fwd(stream, t, nt, s, ns) : mbk_attention_bwd(stream, t, nt, s, ns);
  }
  const int64_t tokens = shape.b * shape.s;
  const int64_t qkv_bytes = tokens * (shape.hq + 2 * shape.hkv) * shape.d * 2,
                o_bytes = tokens * shape.hq * shape.d * 2;
  const mb_buf& ws = t[tensors - 1];
  MB_TRY(CheckBytes("qkv", t[0], qkv_bytes, 16));
  MB_TRY(CheckBytes("o", t[1], o_bytes, 16));
  MB_TRY(CheckBytes("lse", t[2], tokens * shape.hq * 4, 16));
  MB_TRY(CheckBytes("ws", ws, server->workspace_bytes, 16));
  if (t[1].dtype != MB_BF16 || t[2].dtype != MB_F32) return Fail(MB_ERR_ARGUMENT, "attention: o must be bf16, lse f32");
  AttentionBuffers buffers;
  buffers.qkv = t[0].ptr;
  buffers.o = t[1].ptr;
  buffers.lse = t[2].ptr;
  buffers.workspace = ws.ptr;
  if (!forward) {
    MB_TRY(CheckBytes("do", t[3], o_bytes, 16));
    MB_TRY(CheckBytes("dqkv", t[4], qkv_bytes, 16));
    if (t[3].dtype != MB_BF16 || t[4].dtype != MB_BF16) {
      return Fail(MB_ERR_ARGUMENT, "attention: do and dqkv must be bf16");
    }
    buffers.dout = t[3].ptr;
    buffers.dqkv = t[4].ptr;
  }
  try {
    CudnnCheck(LoadCudnn().SetStream(handle_, stream), "set stream");
    const float scale = static_cast<float>(s[5]);
    forward ? server->cudnn->Forward(handle_, buffers, scale) : server->cudnn->Backward(handle_, buffers, scale);
    return MB_OK;
  } catch (const std::exception& error) {
    return Fail(MB_ERR_LIBRARY, "attention: %s", error.what());
  }
}

int Attention::Forward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  return Run(true, stream, t, nt, s, ns);
}

int Attention::Backward(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  return Run(false, stream, t, nt, s, ns);
}

}  // namespace mbcuda
