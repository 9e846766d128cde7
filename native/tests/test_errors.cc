#include "tests/harness.h"

namespace mb::test {
namespace {

// Calls that each break one rule; every op's own counts are checked by the first loop.
void arguments(Context& c, int) {
  for (int op = 0; op < MB_OP_COUNT; ++op) c.refuses(op, {}, {}, MB_ERR_ARGUMENT, "takes");

  const Tensor f(c, c.random.uniforms(64), MB_F32);
  const Tensor i(c, Values(64, 0.0), MB_I32);
  const Tensor state(c, Values(MB_STATE_COUNT, 0.0), MB_F64);
  const mb_buf x = f.buf();
  const mb_buf ids = i.buf();
  const mb_buf none = {nullptr, 0, MB_F32, 0};
  const mb_buf seven = f.part(0, 7);
  mb_buf crooked = f.part(0, 32);
  crooked.ptr = static_cast<char*>(crooked.ptr) + 2;
  const std::vector<double> square = {8, 8, 8, 0, 0, 8, 8, 8, 8, 1, 0, 0};
  const auto gemm = [&](size_t at, double value) {
    std::vector<double> s = square;
    s[at] = value;
    return s;
  };

  const std::vector<mb_buf> attention = {x, x, x, x, x, none, x};
  std::vector<mb_buf> shifted = attention;
  shifted[0] = f.part(1, 32);

  struct Bad {
    int op;
    std::vector<mb_buf> tensors;
    std::vector<double> scalars;
    const char* text;
  };
  const Bad table[] = {
      {MB_OP_GEMM, {x, seven, none, x}, square, "gemm: B has 28 bytes"},
      {MB_OP_GEMM, {x, x, none, none}, square, "gemm: tensor D is absent"},
      {MB_OP_GEMM, {ids, x, none, x}, square, "gemm: A is i32, expected f32 or bf16"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(5, 7), "gemm: lda is 7"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(2, 8.5), "gemm: k is 8.5"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(3, 2), "gemm: ta is 2"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(0, -1), "gemm: m is -1"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(10, 1), "gemm: tensor C is absent"},
      {MB_OP_GEMM, {x, x, none, x}, gemm(11, 1), "gemm: expected a fixed order of sums only of A B^T"},
      {MB_OP_RMSNORM_FWD, {x, x, crooked, x}, {4, 8, 1e-6}, "rmsnorm_fwd: y is not aligned"},
      {MB_OP_RMSNORM_FWD, {x, x, x, seven}, {8, 8, 1e-6}, "rmsnorm_fwd: rstd"},
      {MB_OP_RMSNORM_BWD, {x, x, x, x, x, x, x}, {8, 8, 0, 0}, "rmsnorm_bwd: ws"},
      {MB_OP_ROPE_TABLE, {x, none}, {8, 7, 1e4, 1}, "rope_table: expected an even d"},
      {MB_OP_ATTENTION_FWD, attention, {1, 1, 1, 3, 2, 8, 24, 16, 16, 24, 1, 0, 1, 1, 0}, "hq to be a multiple of hkv"},
      {MB_OP_ATTENTION_FWD, attention, {1, 1, 1, 1, 1, 12, 16, 16, 16, 16, 1, 0, 1, 1, 0}, "d to be a multiple of 8"},
      {MB_OP_ATTENTION_FWD, attention, {1, 1, 1, 1, 1, 8, 12, 8, 8, 8, 1, 0, 1, 1, 0}, "multiples of 8"},
      {MB_OP_ATTENTION_FWD, attention, {1, 1, 2, 1, 1, 8, 8, 8, 8, 8, 1, 0, 1, 1, 0}, "attention_fwd: kv_rows is 1"},
      {MB_OP_ATTENTION_FWD, attention, {1, 1, 1, 1, 1, 8, 8, 8, 8, 8, 1, 0, 1, 1, 0}, "rows of q and o overlap"},
      {MB_OP_ATTENTION_FWD, shifted, {1, 1, 1, 1, 1, 8, 8, 8, 8, 8, 1, 0, 1, 1, 0}, "q is not aligned to 16 bytes"},
      {MB_OP_SWIGLU_FWD, {x, x}, {8, 8}, "swiglu_fwd: gu"},
      {MB_OP_EMBED_FWD, {x, x, x}, {8, 8, 0, 8}, "embed_fwd: ids is f32, expected i32"},
      {MB_OP_CE_STATS, {x, ids, seven}, {8, 8, 0}, "ce_stats: stats"},
      {MB_OP_ADD, {x, x, seven}, {8}, "add: out"},
      {MB_OP_SUMSQ, {ids, x, x}, {8, 0}, "sumsq: x is i32"},
      // Outputs that lie over inputs.
      {MB_OP_SWIGLU_FWD, {f.part(0, 32), f.part(8, 32)}, {2, 8}, "swiglu_fwd: gu and out overlap"},
      {MB_OP_ADD, {f.part(0, 32), f.part(32, 32), f.part(8, 32)}, {32}, "add: a and out overlap"},
      {MB_OP_RMSNORM_FWD, {f.part(0, 32), x, f.part(8, 32), x}, {4, 8, 1e-6}, "rmsnorm_fwd: x and y overlap"},
      {MB_OP_BIAS_ADD, {x, f.part(0, 8)}, {8, 8}, "bias_add: y and bias overlap"},
      // Sizes whose product is no number of 64 bits.
      {MB_OP_RMSNORM_FWD, {x, x, x, x}, {2147483647.0, 9007199254740992.0, 1e-6}, "rmsnorm_fwd: x has 256 bytes"},
      {MB_OP_SWIGLU_FWD, {x, x}, {8589934592.0, 2147483648.0}, "swiglu_fwd: gu has 256 bytes"},
      {MB_OP_GEMM,
       {x, x, none, x},
       {8589934592.0, 2147483648.0, 1, 0, 0, 1, 2147483648.0, 0, 2147483648.0, 1, 0, 0},
       "gemm: A has 256 bytes"},
      {MB_OP_COPY_2D, {x, x}, {8589934592.0, 8, 4294967296.0, 8}, "copy_2d: src has 256 bytes"},
      {MB_OP_INIT_NORMAL, {x}, {8589934592.0, 2147483648.0, 0, 0, 2147483648.0, 1, 0, 0, 0, 0}, "init_normal: out has"},
      {MB_OP_QKNORM_ROPE_FWD, {x, x, none, x, ids, x, x}, {1, 1, 1, 8, 1e-6}, "expected wq and wk, or neither"},
      {MB_OP_ADAMW, {x, x, x, x, x, x}, {8, 0.9, 0.95, 1e-8, 0}, "adamw: state is f32, expected f64"},
      {MB_OP_OPTIMIZER_PREPARE, {x, x, state.buf()}, {1, 0.9, 0.95, 1, 0, 0, 10, 5, 0}, "decay_style"},
      {MB_OP_INIT_NORMAL, {x}, {8, 8, 0, 4, 8, 1, 0, 0, 0, 0}, "init_normal: gcols"},
  };
  for (const Bad& bad : table) c.refuses(bad.op, bad.tensors, bad.scalars, MB_ERR_ARGUMENT, bad.text);
}

// What a GPU cannot check without waiting for it, the CPU does: indices into other tensors.
void indices(Context& c, int) {
  if (c.cuda()) return;
  const Tensor x(c, c.random.uniforms(256 * 16 * 2), MB_F32);
  const Tensor positions(c, Values{0, 1, 4, 0}, MB_I32);
  const Tensor order(c, Values{0, 1, 3, 9}, MB_I32);
  const Tensor unsorted(c, Values{2, 0, 1, 3}, MB_I32);
  const mb_buf table = x.part(0, 4 * 8);  // four positions
  c.refuses(MB_OP_QKNORM_ROPE_FWD, {x.buf(), x.buf(), x.buf(), table, positions.buf(), x.buf(), x.buf()},
            {4, 1, 1, 8, 1e-6}, MB_ERR_ARGUMENT, "positions[2] is 4, and the table has 4 rows");
  c.refuses(MB_OP_EMBED_BWD, {positions.buf(), order.buf(), x.part(0, 64), x.part(64, 64)}, {4, 8, 0, 8},
            MB_ERR_ARGUMENT, "order[2]");
  c.refuses(MB_OP_EMBED_BWD, {positions.buf(), unsorted.buf(), x.part(0, 64), x.part(64, 64)}, {4, 8, 0, 8},
            MB_ERR_ARGUMENT, "order[1]");
}

void bf16(Context& c, int) {
  if (c.cuda()) return;
  const Tensor x(c, Values(64, 0.0), MB_BF16);
  const mb_buf b = x.buf();
  c.refuses(MB_OP_SWIGLU_FWD, {b, b}, {4, 8}, MB_ERR_UNSUPPORTED, "swiglu_fwd: gu is bf16");
  int64_t bytes = 0;
  char kernel[64];
  c.is(c.table->attention_workspace(c.device, MB_BF16, 1, 8, 8, 1, 1, 8, 0, 1, &bytes, kernel) == MB_ERR_UNSUPPORTED,
       "attention_workspace took bf16");
}

}  // namespace

const std::vector<Case> error_cases = {
    {"argument errors", arguments, false},
    {"index errors", indices, false},
    {"bf16 on the CPU", bf16, false},
};

}  // namespace mb::test
