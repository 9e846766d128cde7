// The contract between the Node addon and a backend: plain C, one table of functions, no C++ type or exception crosses
// it. The CPU backend is linked into the addon; the CUDA backend is a shared library that exports one symbol,
// mb_backend_entry.
//
// Every function that returns int returns 0 on success, or an mb_status with the text of what was found in
// mb_backend::last_error (valid on the calling thread until its next call).
#pragma once
#include <stdint.h>

#define MB_ABI 5

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  MB_OK = 0,
  MB_ERR_ARGUMENT = 1,    // a bug of the caller: shape, dtype, alignment, bounds
  MB_ERR_MEMORY = 2,      // an allocation was refused
  MB_ERR_DEVICE = 3,      // the device or its driver failed
  MB_ERR_LIBRARY = 4,     // NCCL, cuBLASLt or cuDNN is missing or failed
  MB_ERR_PEER = 5,        // a peer of a communicator died or aborted
  MB_ERR_TIMEOUT = 6,     // a collective did not complete in time
  MB_ERR_UNSUPPORTED = 7  // not built for this backend, dtype or size
} mb_status;

typedef enum { MB_F32 = 0, MB_BF16 = 1, MB_I32 = 2, MB_F64 = 3, MB_U8 = 4 } mb_dtype;

// A checked view of memory: the addon resolved (arena, offset) and verified offset + bytes against the arena.
// Ops verify bytes, dtype and alignment against their shape arguments. ptr is null for an absent optional tensor.
typedef struct {
  void* ptr;
  int64_t bytes;
  int32_t dtype;
  int32_t reserved;
} mb_buf;

typedef struct mb_device mb_device;
typedef struct mb_comm mb_comm;
typedef struct mb_event mb_event;

// Partial results of a deterministic two-stage reduction over rows: an op that takes `ws` for that needs
// MB_REDUCE_PARTS * (length of the reduced vector) * 4 bytes.
#define MB_REDUCE_PARTS 256

// ---- Ops -----------------------------------------------------------------------------------------------------------
// t[i] are tensors in the order given before the bar, s[i] scalars in the order after it. Matrices are row-major and
// contiguous unless a leading dimension is given. "act" is MB_F32 or MB_BF16, the same for all act tensors of a call;
// accumulation and reductions are in float32 at least. Norm, softmax and loss are computed in float32.
// No op reads a device value on the host, and none uses float atomics.
typedef enum {
  // D[m,n] = alpha * op(A) op(B) + beta * C. A is [m,k] (or [k,m] when ta), B is [k,n] (or [n,k] when tb), C and D are
  // [m,n]. C may be D, or absent when beta is 0. dtypes A,B -> D: f32,f32 -> f32; bf16,bf16 -> bf16 or f32.
  // A B C? D | m n k ta tb lda ldb ldc ldd alpha beta
  MB_OP_GEMM = 0,
  // y = w * cast(x * rstd), rstd = 1/sqrt(mean(x^2) + eps) f32 [rows]. x,y act [rows,cols], w act [cols].
  // x w y rstd | rows cols eps
  MB_OP_RMSNORM_FWD = 1,
  // sum = x + delta (rounded to act), y = rmsnorm(sum). sum may be x.
  // x delta w sum y rstd | rows cols eps
  MB_OP_ADD_RMSNORM_FWD = 2,
  // dx = (accumulate_dx ? dx : 0) + gradient; dw f32 [cols] = (accumulate_dw ? dw : 0) + gradient. dw may be absent.
  // dy x w rstd dx dw? ws | rows cols accumulate_dx accumulate_dw
  MB_OP_RMSNORM_BWD = 3,
  // out f32 [positions, d]: cos in columns [0,d/2), sin in [d/2,d), of p * theta^(-2i/d).
  // out | positions d theta
  MB_OP_ROPE_TABLE = 4,
  // qkv act [T, (hq + 2*hkv) * d], heads in the order q, k, v. RMSNorm over each q and k head (weights wq, wk act [d]),
  // then half-split RoPE at positions i32 [T]; v is copied. out may be qkv. rstd f32 [T, hq + hkv].
  // qkv wq wk table positions out rstd | T hq hkv d eps
  MB_OP_QKNORM_ROPE_FWD = 5,
  // In place: dqkv holds the gradient of out and becomes the gradient of the raw qkv (v untouched).
  // dwq, dwk f32 [d] as dw of RMSNORM_BWD; ws for 2*d.
  // dqkv qkv wq wk table positions rstd dwq dwk ws | T hq hkv d accumulate_dw
  MB_OP_QKNORM_ROPE_BWD = 6,
  // Causal grouped-query attention over qkv act [b, s, hq + 2*hkv, d] (q head h uses kv head h / (hq/hkv)),
  // o act [b, s, hq, d], lse f32 [b, hq, s] = natural log of sum exp(scale * q.k). ws from attention_workspace.
  // qkv o lse ws | b s hq hkv d scale deterministic
  MB_OP_ATTENTION_FWD = 7,
  // dqkv has the layout of qkv and is written wholly.
  // qkv o lse do dqkv ws | b s hq hkv d scale deterministic
  MB_OP_ATTENTION_BWD = 8,
  // gu act [T, 2f] = gate | up. out[T,f] = silu(gate) * up.
  // gu out | T f
  MB_OP_SWIGLU_FWD = 9,
  // dgu may be gu.
  // dout gu dgu | T f
  MB_OP_SWIGLU_BWD = 10,
  // out[t] = w[ids[t] - vstart] where vstart <= ids[t] < vstart + vrows, else 0. w act [vrows,h], ids i32 [T].
  // ids w out | T h vstart vrows
  MB_OP_EMBED_FWD = 11,
  // dw f32 [vrows,h] += rows of dout; order i32 [T] is a stable sort of 0..T-1 by id, made by the data loader, so that
  // each row is summed by one thread block in a fixed order.
  // ids order dout dw | T h vstart vrows
  MB_OP_EMBED_BWD = 12,
  // Per row of logits act [T,V] (one vocabulary shard): stats f32 [3,T]: max, sum of exp(x - max), and the target's
  // logit if vstart <= target < vstart + V, else 0. targets i32 [T].
  // logits targets stats | T V vstart
  MB_OP_CE_STATS = 13,
  // stats[1] *= exp(stats[0] - gmax), after gmax f32 [T] = max over shards.
  // stats gmax | T
  MB_OP_CE_RESCALE = 14,
  // In place: logits become dlogits = (softmax - onehot) * mask. sums f32 [2,T]: global sum of exp, target logit.
  // acc f32 [2] += { sum of loss*mask, sum of mask }; rowloss f32 [T] is scratch that receives loss*mask.
  // logits targets mask gmax sums acc rowloss | T V vstart
  MB_OP_CE_GRAD = 15,
  // out = a + b, act or f32. out may be a or b.
  // a b out | n
  MB_OP_ADD = 16,
  // Conversion between f32 and bf16 (round to nearest even), or a copy when the dtypes agree.
  // in out | n
  MB_OP_CAST = 17,
  // Every element = value; any dtype.
  // out | n value
  MB_OP_FILL = 18,
  // x *= alpha, f32.
  // x | n alpha
  MB_OP_SCALE = 19,
  // out f32 [1] = (accumulate ? out : 0) + sum of squares of x (f32 or bf16). ws MB_REDUCE_PARTS * 4 bytes.
  // x out ws | n accumulate
  MB_OP_SUMSQ = 20,
  // state f64 [16], see mb_state_index. normsq f32 [1]: sum of squares of the undivided gradient; acc f32 [2]: global
  // loss sum and token count. Writes grad_norm = sqrt(normsq)/tokens, loss, scale = min(1, clip/(norm+1e-6))/tokens
  // (clip 0: no clipping), skip = norm not finite; unless skipped: step += 1, lr of update `step`, bias corrections.
  // decay_style: 0 constant, 1 linear, 2 cosine, 3 WSD (linear over the last wsd_iters).
  // normsq acc state | clip beta1 beta2 lr min_lr warmup decay_iters decay_style wsd_iters
  MB_OP_OPTIMIZER_PREPARE = 21,
  // Decoupled AdamW over a flat run with one weight decay: p, m, v, g f32 [n]; out act [n] = cast(p) unless it is p.
  // lr, scale, bias corrections and skip come from state. p -= lr*wd*p_old, then the Adam update, eps outside the root.
  // p m v g out state | n beta1 beta2 eps weight_decay
  MB_OP_ADAMW = 22,
  // out act or f32 [rows, cols], element (r,c) is a normal deviate * std of a counter-based stream: Philox4x32-10 with
  // key = (seed_lo ^ key_lo, seed_hi ^ key_hi), counter = (index_lo, index_hi, 0, 0), index = (row0+r)*gcols + col0+c
  // (64 bits), key = high*2^32+low given as two scalars. Of the four words: u1 = (w0 + 1) / 2^32,
  // u2 = w1 / 2^32, z = sqrt(-2 ln u1) * cos(2 pi u2) in float64.
  // out | rows cols row0 col0 gcols std seed_lo seed_hi key_lo key_hi
  MB_OP_INIT_NORMAL = 23,
  MB_OP_COUNT = 24
} mb_op;

typedef enum {
  MB_STATE_GRAD_NORM = 0,
  MB_STATE_SCALE = 1,
  MB_STATE_SKIP = 2,
  MB_STATE_STEP = 3,  // updates applied
  MB_STATE_LR = 4,    // of this update
  MB_STATE_LOSS = 5,
  MB_STATE_TOKENS = 6,
  MB_STATE_SKIPPED_IN_ROW = 7,
  MB_STATE_BIAS1 = 8,  // 1 - beta1^step
  MB_STATE_BIAS2 = 9,
  MB_STATE_COUNT = 16
} mb_state_index;

typedef int (*mb_op_fn)(mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns);

// ---- Communicators -------------------------------------------------------------------------------------------------
typedef enum { MB_SUM = 0, MB_MAX = 1 } mb_reduce;
typedef struct {
  mb_buf buf;
  int32_t peer;  // rank in the communicator
  int32_t send;  // 1 send, 0 receive
} mb_p2p;

// Ops fused with a communicator's collectives. `partial` and `full` are act [size * rows, cols] and must lie in a
// window that `share` opened; act tensors otherwise have `rows` rows, those of this rank. cols is a multiple of 16
// bytes, at most MB_COMM_COLS, and everything is aligned to 16 bytes.
#define MB_COMM_COLS 8192
typedef enum {
  // sum = residual + (sum over members of their partial's rows of this rank), y = rmsnorm(sum) as ADD_RMSNORM_FWD, and
  // full = every member's y. sum may be residual.
  // partial residual w sum y full rstd | rows cols eps
  MB_COMM_OP_REDUCE_NORM_GATHER = 0,
  // RMSNORM_BWD whose dy is the sum over members of their partial's rows of this rank; full, which may be absent,
  // receives every member's dx.
  // partial x w rstd dx dw? ws full? | rows cols accumulate_dx accumulate_dw
  MB_COMM_OP_NORM_BWD_GATHER = 1,
  MB_COMM_OP_COUNT = 2
} mb_comm_op;

// The device is the one that the communicator was created on.
typedef int (*mb_comm_op_fn)(mb_comm*, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns);

typedef struct {
  // 128 bytes, made by the group's first rank and given to the others through the rendezvous store.
  int (*make_id)(mb_device*, uint8_t id[128]);
  // ranks: global ranks of the members, ascending, for error texts. Returns once every member has joined, or fails.
  int (*create)(mb_device*, const uint8_t id[128], const char* name, int rank, int size, const int32_t* ranks,
                double timeout_s, mb_comm** out);
  void (*destroy)(mb_comm*);
  // May be called from any thread: every pending and later call on it fails with MB_ERR_PEER, here and at its peers.
  void (*abort)(mb_comm*);
  int (*all_reduce)(mb_comm*, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op);
  // in [size*n], out [n]; out may be the rank's slice of in.
  int (*reduce_scatter)(mb_comm*, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op);
  // in [n], out [size*n]; in may be the rank's slice of out.
  int (*all_gather)(mb_comm*, int stream, const mb_buf* in, const mb_buf* out, int64_t n);
  int (*broadcast)(mb_comm*, int stream, const mb_buf* buf, int64_t n, int root);
  // All of ops progress together; whole buffers are transferred (sizes must agree).
  int (*p2p)(mb_comm*, int stream, const mb_p2p* ops, int count);
  int (*barrier)(mb_comm*, int stream);
  // MB_OK, or the asynchronous failure of this communicator. Called from a watchdog thread.
  int (*check)(mb_comm*);
  // Every member calls it with its arena: *shared becomes 1 where all of them can read and write each other's memory
  // directly, else 0. Collectives on tensors in a shared arena may then use that, and `ops` work. `layout` says what
  // lies where in the arena; arenas of different bytes or layout are not shared, because a tensor is taken to lie at
  // the same offset in each.
  int (*share)(mb_comm*, const mb_buf* arena, int64_t layout, int* shared);
  // Every member calls it before it releases an arena that `share` opened and nothing uses any more. Returns when no
  // member can reach another's: memory that others still have open would not be free.
  int (*unshare)(mb_comm*, const mb_buf* arena);
  mb_comm_op_fn ops[MB_COMM_OP_COUNT];
} mb_comm_table;

// ---- Backend -------------------------------------------------------------------------------------------------------
typedef struct {
  char name[128];  // "NVIDIA H200", or the CPU model
  int64_t total_bytes;
  int64_t free_bytes;  // as of now
  double peak_tflops;  // dense bf16 peak; 0 where unknown
  int32_t index;
  int32_t capability;  // 90 for sm_90
  int32_t threads;     // CPU threads
  int32_t driver;      // CUDA driver API version, 0 on the CPU
} mb_device_info;

typedef struct {
  uint32_t abi;
  const char* name;  // "cpu" or "cuda"
  const char* (*last_error)(void);
  int (*device_count)(int* count);
  // threads: CPU worker threads. streams 0..7 exist; on the CPU every stream is synchronous.
  int (*open)(int index, int threads, mb_device** out);
  void (*close)(mb_device*);
  int (*info)(mb_device*, mb_device_info*);
  int (*alloc)(mb_device*, int64_t bytes, void** out);
  void (*release)(mb_device*, void*);
  // Host <-> arena, ordered on the stream. write returns when src may be reused; read when dst is filled.
  int (*write)(mb_device*, int stream, const mb_buf* dst, const void* src);
  int (*read)(mb_device*, int stream, const mb_buf* src, void* dst);
  // Asynchronous read: begin enqueues a copy into an internal slot and returns a ticket, wait (any thread) blocks and
  // copies it out. At most 64 KiB each, 16 outstanding.
  int (*fetch_begin)(mb_device*, int stream, const mb_buf* src, int64_t* ticket);
  int (*fetch_wait)(mb_device*, int64_t ticket, void* dst);
  int (*copy)(mb_device*, int stream, const mb_buf* src, const mb_buf* dst);  // equal byte counts
  // Pins memory of the process, so that read_async runs beside the device's work; unregister before it is freed.
  int (*host_register)(mb_device*, void* ptr, int64_t bytes);
  int (*host_unregister)(mb_device*, void* ptr);
  // Enqueues a copy into registered memory and returns; dst is filled when the stream has passed it.
  int (*read_async)(mb_device*, int stream, const mb_buf* src, void* dst);
  // Events order streams: recorded on one, waited for by another (refused before it was recorded). A timed one also
  // measures, which costs the device more than ordering alone. Destroying one does not disturb what already waits for
  // it; all of a device's are destroyed before it is closed.
  int (*event_create)(mb_device*, int timed, mb_event** out);
  void (*event_destroy)(mb_device*, mb_event*);
  int (*record)(mb_device*, int stream, mb_event*);
  int (*wait)(mb_device*, int stream, mb_event*);
  int (*synchronize)(mb_device*);  // blocks until all streams are idle
  // Milliseconds between two timed events that were recorded; waits for them.
  int (*elapsed_ms)(mb_device*, mb_event* first, mb_event* second, double* ms);
  // Bytes of ws that ATTENTION_FWD and _BWD need for these sizes; also builds and caches what the op needs. kernel
  // receives the name of what will serve, such as "cudnn 9.19.0" or "mbridge".
  int (*attention_workspace)(mb_device*, int dtype, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d,
                             int deterministic, int64_t* bytes, char kernel[64]);
  // JSON text with what was found or why not: libraries, versions, paths. Needs no device. Owned by the backend.
  const char* (*describe)(void);
  mb_op_fn ops[MB_OP_COUNT];
  mb_comm_table comm;
} mb_backend;

// Exported by libmbridge_cuda.so. Null when the ABI differs.
typedef const mb_backend* (*mb_backend_entry_fn)(uint32_t abi);

#ifdef __cplusplus
}
#endif
