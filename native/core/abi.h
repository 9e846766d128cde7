// The contract between the Node addon and a backend: plain C, one table of functions, no C++ type or exception crosses
// it. The CPU backend is linked into the addon; the CUDA backend is a shared library that exports one symbol,
// mb_backend_entry.
//
// Every function that returns int returns 0 on success, or an mb_status with the text of what was found in
// mb_backend::last_error (valid on the calling thread until its next call).
#pragma once
#include <stdint.h>

#define MB_ABI 10

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  MB_OK = 0,
  MB_ERR_ARGUMENT = 1,     // a bug of the caller: shape, dtype, alignment, bounds
  MB_ERR_MEMORY = 2,       // an allocation was refused
  MB_ERR_DEVICE = 3,       // the device or its driver failed
  MB_ERR_LIBRARY = 4,      // NCCL, cuBLASLt or cuDNN is missing or failed
  MB_ERR_PEER = 5,         // a peer of a communicator died or aborted
  MB_ERR_TIMEOUT = 6,      // a collective did not complete in time
  MB_ERR_UNSUPPORTED = 7,  // not built for this backend, dtype or size
  MB_ERR_MISMATCH = 8      // the members of a communicator call different things
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
typedef struct mb_graph mb_graph;

// Partial results of a deterministic two-stage reduction over rows: an op that takes `ws` for that needs
// MB_REDUCE_PARTS * (length of the reduced vector) * 4 bytes.
#define MB_REDUCE_PARTS 256
// Of generation: parts that a long row of keys is cut into at most, places that a cache is rounded up to, parts of a
// vocabulary shard that SAMPLE looks at side by side.
#define MB_CHUNK_KEYS 256  // keys that attention over a cache adds up by themselves
#define MB_CACHE_STEP 16
#define MB_SAMPLE_PARTS 8
// Most tokens of a row that TOP_K gives.
#define MB_MOST_TOP_K 1024

// ---- Ops: ops.def documents each -----------------------------------------------------------------------------------
typedef enum {
#define MB_OP(NAME, name, tensors, scalars) MB_OP_##NAME,
#include "core/ops.def"
#undef MB_OP
  MB_OP_COUNT
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

// ---- Ops of communicators: comm_ops.def documents each ----
#define MB_COMM_COLS 8192           // longest row that they take
#define MB_COMM_SMALL (512 * 1024)  // bytes of the largest ALL_REDUCE_SMALL
typedef enum {
#define MB_COMM_OP(NAME, name, tensors, scalars) MB_COMM_OP_##NAME,
#include "core/comm_ops.def"
#undef MB_COMM_OP
  MB_COMM_OP_COUNT
} mb_comm_op;

// The device is the one that the communicator was created on.
typedef int (*mb_comm_op_fn)(mb_comm*, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns);

typedef struct {
  // 128 bytes, made by the group's first rank and given to the others through the rendezvous store. address: where the
  // ranks of other nodes reach this process, an IPv4 or IPv6 address; null where all members are on one node. With an
  // address the CPU's leaves the last 32 bytes to the caller: the group's key, which every member sets before it
  // creates, and which does not go through the store. NCCL finds its own addresses.
  int (*make_id)(mb_device*, const char* address, uint8_t id[128]);
  // ranks: global ranks of the members, each once, for error texts. Returns once every member has joined, or fails.
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
  // Each of the four [size], in elements: send_counts[r] elements of `in` from send_offsets[r] on go to member r,
  // recv_counts[r] from member r arrive in `out` from recv_offsets[r] on. What one sends the other must expect.
  // `in` and `out` do not overlap.
  int (*all_to_all)(mb_comm*, int stream, const mb_buf* in, const mb_buf* out, const int64_t* send_counts,
                    const int64_t* send_offsets, const int64_t* recv_counts, const int64_t* recv_offsets);
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
  // Calls that it has given the device, and how many of these, from the first on, `check` last found finished. Any
  // thread. Null where a call has finished when it returns.
  void (*calls)(mb_comm*, int64_t* made, int64_t* finished);
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
  // Memory of the host that `copy` reads and writes at the full rate of the bus, beside the device's work: pinned on a
  // GPU. Released when no copy of it is under way.
  int (*host_alloc)(mb_device*, int64_t bytes, void** out);
  void (*host_release)(mb_device*, void*);
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
  // What this thread enqueues on a stream between begin and end is not run but kept: ops and copies of memory that
  // stays where it is, and each op once before, so that it has chosen its kernels. launch runs it all with one call.
  // end also ends a capture that failed. MB_ERR_UNSUPPORTED on the CPU.
  int (*capture_begin)(mb_device*, int stream);
  int (*capture_end)(mb_device*, int stream, mb_graph** out);
  int (*graph_launch)(mb_device*, int stream, mb_graph*);
  void (*graph_destroy)(mb_device*, mb_graph*);
  // Milliseconds between two timed events that were recorded; waits for them.
  int (*elapsed_ms)(mb_device*, mb_event* first, mb_event* second, double* ms);
  // Bytes of ws that ATTENTION_FWD and _BWD need for these sizes; also builds and caches what the op needs. kernel
  // receives the name of what will serve, such as "cudnn 9.19.0" or "mbridge": a library serves where there
  // are no bounds and the last query sees all keys, or every query does; our own kernel all else.
  int (*attention_workspace)(mb_device*, int dtype, int64_t b, int64_t sq, int64_t skv, int64_t hq, int64_t hkv,
                             int64_t d, int64_t offset, int deterministic, int64_t* bytes, char kernel[64]);
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
