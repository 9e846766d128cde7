// Quantisation to e4m3 in both orientations, one pass over tiles of 128 x 128, alone or after SwiGLU.
//
// A block of threads has a tile; a thread has 8 rows of 8 columns of it, in registers. Codes of x^T turn over through
// shared memory in words of 8, whose places are swizzled so that neither writing nor reading them meets a bank twice.
#include <cuda_fp8.h>
#include <cuda_pipeline_primitives.h>

#include "core/args/fp8.h"
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/swiglu.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kTile = int(kFp8Block);
constexpr int kSide = 8;                // rows, and columns, of a thread
constexpr int kAcross = kTile / kSide;  // threads across a tile, and down it
constexpr int kThreads = kAcross * kAcross;
constexpr int kWarps = kThreads / 32;

// bf16 values of a thread: row by row, two columns a word.
using Square = uint32_t[kSide][kSide / 2];

// Of x^T: 8 of a row of it, in place k ^ (row / 8).
using Turned = uint2[kTile][kAcross];

struct Shared {
  uint4 columns[kWarps][kAcross];  // the largest of each warp's rows, of the 8 columns of a thread
};

__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Sizes order as integers do, and what is not a number is above all others.
__device__ __forceinline__ uint32_t sizes(uint32_t pair) { return pair & 0x7fff7fffu; }

__device__ __forceinline__ Fp8Scale scale_of(uint32_t largest) { return fp8_scale(largest << 16); }

__device__ __forceinline__ uint32_t codes_of(float a, float b, float c, float d) {
  const uint32_t front = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
  const uint32_t back = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
  return front | back << 16;
}

// The largest of each of a tile's rows, two a word: the same in all threads that have them.
__device__ __forceinline__ void row_sizes(const Square& x, uint32_t (&rows)[kSide / 2]) {
#pragma unroll
  for (int i = 0; i < kSide / 2; ++i) {
    uint32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const uint32_t(&row)[kSide / 2] = x[2 * i + j];
      pairs[j] = __vmaxu2(__vmaxu2(sizes(row[0]), sizes(row[1])), __vmaxu2(sizes(row[2]), sizes(row[3])));
    }
    rows[i] = __vmaxu2(__byte_perm(pairs[0], pairs[1], 0x5410), __byte_perm(pairs[0], pairs[1], 0x7632));
#pragma unroll
    for (int k = kAcross / 2; k > 0; k /= 2) rows[i] = __vmaxu2(rows[i], __shfl_xor_sync(0xffffffffu, rows[i], k));
  }
}

// The same of its columns. All threads of the block call it.
__device__ __forceinline__ void column_sizes(const Square& x, Shared& shared, uint32_t (&columns)[kSide / 2]) {
  const int across = threadIdx.x % kAcross;
#pragma unroll
  for (int i = 0; i < kSide / 2; ++i) {
    columns[i] = sizes(x[0][i]);
#pragma unroll
    for (int p = 1; p < kSide; ++p) columns[i] = __vmaxu2(columns[i], sizes(x[p][i]));
    columns[i] = __vmaxu2(columns[i], __shfl_xor_sync(0xffffffffu, columns[i], kAcross));
  }
  if (threadIdx.x % 32 < kAcross) {
    shared.columns[threadIdx.x / 32][across] = make_uint4(columns[0], columns[1], columns[2], columns[3]);
  }
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    const uint4 found = shared.columns[warp][across];
    columns[0] = __vmaxu2(columns[0], found.x);
    columns[1] = __vmaxu2(columns[1], found.y);
    columns[2] = __vmaxu2(columns[2], found.z);
    columns[3] = __vmaxu2(columns[3], found.w);
  }
}

// The largest of the tile, of its columns.
__device__ __forceinline__ uint32_t tile_size(const uint32_t (&columns)[kSide / 2]) {
  uint32_t pair = __vmaxu2(__vmaxu2(columns[0], columns[1]), __vmaxu2(columns[2], columns[3]));
#pragma unroll
  for (int k = kAcross / 2; k > 0; k /= 2) pair = __vmaxu2(pair, __shfl_xor_sync(0xffffffffu, pair, k));
  return max(pair & 0xffffu, pair >> 16);
}

// Scales of 8 rows of 1 x 128 blocks from `row` on, those that there are.
__device__ __forceinline__ void store_scales(const Fp8Matrix& z, int64_t row, int64_t block,
                                             const Fp8Scale (&scales)[kSide]) {
#pragma unroll
  for (int p = 0; p < kSide; p += 4) {
    if (row + p >= z.rows) return;
    *reinterpret_cast<float4*>(z.scales + block * z.rows + row + p) =
        make_float4(scales[p].scale, scales[p + 1].scale, scales[p + 2].scale, scales[p + 3].scale);
  }
}

// The scale of a block of 128 x 128, and the zeros behind the last of a row.
__device__ __forceinline__ void store_scale(const Fp8Matrix& z, int64_t row, int64_t block, float scale) {
  const int64_t blocks = z.cols / kFp8Block, stride = fp8_scale_stride(z.cols);
  z.scales[row * stride + block] = scale;
  for (int64_t i = blocks; block == blocks - 1 && i < stride; ++i) z.scales[row * stride + i] = 0;
}

// Scales of a thread's 8 rows or columns, of a tile at (row, block) of z's blocks of 128.
__device__ __forceinline__ void scales_of(const Fp8Matrix& z, const uint32_t (&pairs)[kSide / 2], uint32_t tile,
                                          int64_t row, int64_t block, int within, bool first, bool writes,
                                          float (&inverse)[kSide]) {
  if (z.block != 1) {
    const Fp8Scale scale = scale_of(tile);
#pragma unroll
    for (int p = 0; p < kSide; ++p) inverse[p] = scale.inverse;
    if (first) store_scale(z, row, block, scale.scale);
    return;
  }
  Fp8Scale scales[kSide];
#pragma unroll
  for (int p = 0; p < kSide; ++p) {
    scales[p] = scale_of(p % 2 == 0 ? pairs[p / 2] & 0xffffu : pairs[p / 2] >> 16);
    inverse[p] = scales[p].inverse;
  }
  if (writes) store_scales(z, row * kTile + within, block, scales);
}

__device__ __forceinline__ void store_codes(const Fp8Matrix& z, const Square& x, int64_t row, int64_t column,
                                            const float (&inverse)[kSide]) {
#pragma unroll
  for (int p = 0; p < kSide; ++p) {
    const uint32_t(&w)[kSide / 2] = x[p];
    const float by = inverse[p];
    const uint2 codes = make_uint2(codes_of(low(w[0]) * by, high(w[0]) * by, low(w[1]) * by, high(w[1]) * by),
                                   codes_of(low(w[2]) * by, high(w[2]) * by, low(w[3]) * by, high(w[3]) * by));
    if (row + p < z.rows) *reinterpret_cast<uint2*>(z.codes + (row + p) * z.cols + column) = codes;
  }
}

// z is x^T: `row` and `column` are of x, where the tile begins. All threads of the block call it.
__device__ __forceinline__ void store_turned(const Fp8Matrix& z, const Square& x, Turned& turned, int64_t row,
                                             int64_t column, const float (&inverse)[kSide]) {
  const int across = threadIdx.x % kAcross, down = threadIdx.x / kAcross;
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    float v[kSide];
#pragma unroll
    for (int p = 0; p < kSide; ++p) v[p] = (i % 2 == 0 ? low(x[p][i / 2]) : high(x[p][i / 2])) * inverse[i];
    turned[across * kSide + i][down ^ across] =
        make_uint2(codes_of(v[0], v[1], v[2], v[3]), codes_of(v[4], v[5], v[6], v[7]));
  }
  __syncthreads();
  constexpr int kPieces = kTile / 16;  // of 16 codes in a row
#pragma unroll
  for (int k = threadIdx.x; k < kTile * kPieces; k += kThreads) {
    const int line = k / kPieces, piece = k % kPieces, mask = line / kSide;
    const uint4 found = *reinterpret_cast<const uint4*>(&turned[line][2 * (piece ^ mask / 2)]);
    store16(z.codes + (column + line) * z.cols + row + piece * 16,
            mask % 2 == 0 ? found : make_uint4(found.z, found.w, found.x, found.y));
  }
}

// Both orientations of a tile that begins at 128 * (down, across) of x.
__device__ __forceinline__ void quantize_tile(const Square& x, Shared& shared, Turned& codes, int64_t down,
                                              int64_t across, const Fp8Matrix& q, const Fp8Matrix& t) {
  const int row = threadIdx.x / kAcross * kSide, column = threadIdx.x % kAcross * kSide;
  const bool turned = t.codes != nullptr, first = threadIdx.x == 0;
  float inverse[kSide];
  uint32_t columns[kSide / 2] = {}, tile = 0;
  if (turned || q.block != 1) {
    column_sizes(x, shared, columns);
    tile = tile_size(columns);
  }
  if (q.codes != nullptr) {
    uint32_t rows[kSide / 2] = {};
    if (q.block == 1) row_sizes(x, rows);
    scales_of(q, rows, tile, down, across, row, first, column == 0, inverse);
    store_codes(q, x, down * kTile + row, across * kTile + column, inverse);
  }
  if (turned) {
    scales_of(t, columns, tile, across, down, column, first, row == 0, inverse);
    store_turned(t, x, codes, down * kTile, across * kTile, inverse);
  }
}

__device__ __forceinline__ void put(uint4 raw, uint32_t (&row)[kSide / 2]) {
  row[0] = raw.x;
  row[1] = raw.y;
  row[2] = raw.z;
  row[3] = raw.w;
}

// Where values come from: `at` is the place of 8 of one row, of each of kReads tensors, and `make` what they give for
// each of the kParts tiles that a block makes, which lie `apart` tiles from each other.
struct Plain {
  static constexpr int kParts = 1, kReads = 1;
  const bf16* x;
  int64_t cols;
  int64_t apart = 0;

  __device__ __forceinline__ const bf16* at(int64_t row, int64_t column, int) const { return x + row * cols + column; }
  __device__ __forceinline__ static void make(const uint4 (&read)[kReads], Square (&to)[kParts], int p) {
    put(read[0], to[0][p]);
  }
};

struct Forward {
  static constexpr int kParts = 1, kReads = 2;
  const bf16* gu;
  int64_t f;
  int64_t apart = 0;

  __device__ __forceinline__ const bf16* at(int64_t row, int64_t column, int i) const {
    return gu + (2 * row + i) * f + column;
  }
  __device__ __forceinline__ static void make(const uint4 (&read)[kReads], Square (&to)[kParts], int p) {
    float gate[kSide], up[kSide];
    unpack<bf16>(read[0], gate);
    unpack<bf16>(read[1], up);
#pragma unroll
    for (int e = 0; e < kSide; ++e) gate[e] = forward_one<bf16>(gate[e], up[e]);
    put(pack<bf16>(gate), to[0][p]);
  }
};

struct Backward {
  static constexpr int kParts = 2, kReads = 3;
  const bf16 *dout, *gu;
  int64_t f, apart;

  __device__ __forceinline__ const bf16* at(int64_t row, int64_t column, int i) const {
    return i == 2 ? dout + row * f + column : gu + (2 * row + i) * f + column;
  }
  __device__ __forceinline__ static void make(const uint4 (&read)[kReads], Square (&to)[kParts], int p) {
    float gate[kSide], up[kSide], d[kSide];
    unpack<bf16>(read[0], gate);
    unpack<bf16>(read[1], up);
    unpack<bf16>(read[2], d);
#pragma unroll
    for (int e = 0; e < kSide; ++e) backward_one<bf16>(d[e], gate[e], up[e]);
    put(pack<bf16>(gate), to[0][p]);
    put(pack<bf16>(up), to[1][p]);
  }
};

// All reads of a thread are under way at once, which its registers have no room for: each goes to a place of its own.
template <class Source>
constexpr int kStagedBytes = Source::kReads * kSide * kThreads * 16;
static_assert(kStagedBytes<Plain> >= int(sizeof(Turned)));

template <class Source>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(Source source, int64_t rows, uint32_t tiles, Fp8Matrix q, Fp8Matrix t) {
  extern __shared__ uint4 staged[];
  __shared__ Shared shared;
  constexpr int kReads = Source::kReads;
  const uint32_t across = blockIdx.x % tiles, down = blockIdx.x / tiles;
  const int64_t row = int64_t(down) * kTile + threadIdx.x / kAcross * kSide;
  const int64_t column = int64_t(across) * kTile + threadIdx.x % kAcross * kSide;
  uint4* const own = staged + threadIdx.x;
#pragma unroll
  for (int p = 0; p < kSide; ++p) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      if (row + p < rows) __pipeline_memcpy_async(own + (p * kReads + i) * kThreads, source.at(row + p, column, i), 16);
    }
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  Square x[Source::kParts] = {};
#pragma unroll
  for (int p = 0; p < kSide; ++p) {
    uint4 read[kReads];
#pragma unroll
    for (int i = 0; i < kReads; ++i) read[i] = own[(p * kReads + i) * kThreads];
    if (row + p < rows) Source::make(read, x, p);
  }
#pragma unroll
  for (int part = 0; part < Source::kParts; ++part) {
    if (part > 0) __syncthreads();
    // All have taken what they staged: they met in column_sizes, without which nothing is turned.
    quantize_tile(x[part], shared, *reinterpret_cast<Turned*>(staged), down, across + part * source.apart, q, t);
  }
}

template <class Source>
int quantize(cudaStream_t stream, const char* op, const Source& source, const Fp8QuantizeArgs& z) {
  if (z.dtype != MB_BF16) return fail(MB_ERR_UNSUPPORTED, "%s: of f32; on a GPU of bf16 alone", op);
  const int64_t tiles = z.cols / kTile / Source::kParts, blocks = ceil_div(z.rows, kTile) * tiles;
  if (blocks > INT32_MAX) return fail(MB_ERR_UNSUPPORTED, "%s: %lld tiles", op, static_cast<long long>(blocks));
  constexpr int kBytes = kStagedBytes<Source>;
  if (allow_shared_memory(quantize_kernel<Source>, kBytes)) {
    quantize_kernel<<<unsigned(blocks), kThreads, kBytes, stream>>>(source, z.rows, uint32_t(tiles), z.q, z.t);
  }
  return launched(op);
}

}  // namespace

int op_fp8_quantize(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_FP8_QUANTIZE], t, nt, s, ns);
  const Fp8QuantizeArgs z = read_fp8_quantize(a);
  if (!a.ok() || z.rows == 0) return a.status();
  return quantize(stream, "fp8_quantize", Plain{static_cast<const bf16*>(z.x), z.cols}, z);
}

int op_swiglu_fwd_fp8(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SWIGLU_FWD_FP8], t, nt, s, ns);
  const Fp8QuantizeArgs z = read_swiglu_fwd_fp8(a);
  if (!a.ok() || z.rows == 0) return a.status();
  return quantize(stream, "swiglu_fwd_fp8", Forward{static_cast<const bf16*>(z.x), z.cols}, z);
}

int op_swiglu_bwd_fp8(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SWIGLU_BWD_FP8], t, nt, s, ns);
  const Fp8QuantizeArgs z = read_swiglu_bwd_fp8(a);
  if (!a.ok() || z.rows == 0) return a.status();
  const int64_t f = z.cols / 2;
  const Backward source{static_cast<const bf16*>(z.dout), static_cast<const bf16*>(z.x), f, f / kTile};
  return quantize(stream, "swiglu_bwd_fp8", source, z);
}

}  // namespace mb::cuda::kernels
