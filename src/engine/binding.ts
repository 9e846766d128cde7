// The typed contract of the native addon (native/node). Handles are small integers; memory never belongs to V8. Failures
// throw an Error whose `code` is MB_ARGUMENT, MB_MEMORY, MB_DEVICE, MB_LIBRARY, MB_PEER, MB_TIMEOUT, MB_MISMATCH or
// MB_UNSUPPORTED.

export interface NativeDeviceInfo {
  name: string;
  totalBytes: number;
  freeBytes: number;
  /** Dense bf16 peak in TFLOP/s; 0 where unknown. */
  peakTflops: number;
  index: number;
  capability: number;
  threads: number;
  driver: number;
}

/**
 * Tensors and scalars of a call are written to `args` first: 4 numbers a tensor (arena or -1 for absent, byte offset,
 * bytes, dtype number), then the scalars. `nt` and `ns` are their counts.
 */
export interface NativeBinding {
  readonly abi: number;
  readonly args: Float64Array;
  /** Loads libmbridge_cuda.so from `path`; throws with the reason. The CPU backend is always there. */
  loadCuda(path: string): void;
  /** JSON text of mb_backend::describe. */
  describe(backend: string): string;
  deviceCount(backend: string): number;
  open(backend: string, index: number, threads: number): number;
  close(device: number): void;
  info(device: number): NativeDeviceInfo;
  /** How many of each there are in this process: what is not given back shows here. */
  handles(): { devices: number; arenas: number; comms: number; events: number; graphs: number; watches: number };
  /** Memory of the device. Fresh memory is not zeroed on a GPU. */
  arenaCreate(device: number, bytes: number): number;
  /** Memory of the host that `copy` reads and writes at the full rate of the bus: pinned on a GPU. */
  hostArenaCreate(device: number, bytes: number): number;
  arenaFree(arena: number): void;
  run(device: number, stream: number, op: number, nt: number, ns: number): void;
  /** args holds the one tensor. */
  write(device: number, stream: number, src: Uint8Array): void;
  read(device: number, stream: number, dst: Uint8Array): void;
  fetchBegin(device: number, stream: number): number;
  fetchWait(device: number, ticket: number, bytes: number): Promise<Uint8Array>;
  /** args holds source and destination. */
  copy(device: number, stream: number): void;
  /** Pins memory, so that readAsync into it runs beside the device's work. It must stay alive until hostUnregister. */
  hostRegister(device: number, memory: Uint8Array): void;
  hostUnregister(device: number, memory: Uint8Array): void;
  /** args holds the source. `dst` is pinned memory, filled when the stream has passed the copy. */
  readAsync(device: number, stream: number, dst: Uint8Array): void;
  /** A timed event can measure, which costs a GPU more than ordering alone. */
  eventCreate(device: number, timed: boolean): number;
  /** Whatever waits for the event already is not disturbed. */
  eventDestroy(event: number): void;
  record(device: number, stream: number, event: number): void;
  /** Refused for an event that was never recorded. */
  wait(device: number, stream: number, event: number): void;
  synchronize(device: number): void;
  /** What is enqueued on the stream from here to captureEnd is kept and not run. MB_UNSUPPORTED on the CPU. */
  captureBegin(device: number, stream: number): void;
  captureEnd(device: number, stream: number): number;
  graphLaunch(device: number, stream: number, graph: number): void;
  graphDestroy(graph: number): void;
  /** Between two timed events. */
  elapsedMs(device: number, first: number, second: number): number;
  attentionWorkspace(
    device: number,
    dtype: number,
    b: number,
    sq: number,
    skv: number,
    hq: number,
    hkv: number,
    d: number,
    offset: number,
    deterministic: boolean,
  ): { bytes: number; kernel: string };

  /**
   * @param address where ranks of other nodes reach this process; left out where all members are on one node. With one, a
   * CPU's id ends in 32 bytes for the group's key, which each member sets
   */
  commMakeId(device: number, address?: string): Uint8Array;
  /** Resolves once every member has joined; runs off the main thread. */
  commCreate(
    device: number,
    id: Uint8Array,
    name: string,
    rank: number,
    ranks: Int32Array,
    timeoutSeconds: number,
  ): Promise<number>;
  commDestroy(comm: number): void;
  commAbort(comm: number): void;
  /**
   * Starts a native thread that checks these communicators, and gives a handle to it. When one of them fails, all are
   * aborted, so that no thread of this process stays blocked in them. Watches do not know of each other.
   */
  watch(comms: readonly number[], intervalMs: number): number;
  watchStop(watch: number): void;
  /** Throws the failure that this watch found, if any. */
  watchCheck(watch: number): void;
  /** args: in, out. `reduce` 0 sum, 1 max. `n` elements a rank (whole buffer for all-reduce). */
  allReduce(comm: number, stream: number, n: number, reduce: number): void;
  reduceScatter(comm: number, stream: number, n: number, reduce: number): void;
  allGather(comm: number, stream: number, n: number): void;
  /** args: the buffer. */
  broadcast(comm: number, stream: number, n: number, root: number): void;
  /**
   * All of any number of transfers progress together: 4 numbers of each tensor, as in `args`, then a pair of each
   * transfer (peer, 1 for send or 0 for receive).
   */
  p2p(comm: number, stream: number, transfers: Float64Array): void;
  /** args: in, out. `counts`: for every member elements sent, then their offsets, elements received, their offsets. */
  allToAll(comm: number, stream: number, counts: Float64Array): void;
  barrier(comm: number, stream: number): void;
  /**
   * args: the arena as one tensor. Every member calls it; true where all of them can read and write each other's.
   * `layout`: equal only where every tensor lies at the same offset.
   */
  commShare(comm: number, layout: number): boolean;
  /** args: an arena that commShare opened. Every member calls it, before it frees the arena; waits for them. */
  commUnshare(comm: number): void;
  /** An op of `mb_comm_op`, on tensors of a shared arena. */
  commRun(comm: number, stream: number, op: number, nt: number, ns: number): void;

  /**
   * From now on every call on the communicator is compared with the other members' before it is made, by a collective of
   * its own: a difference is MB_MISMATCH. Every member calls it. What a graph is captured from is not compared.
   */
  commCompare(comm: number, group: string, rank: number, ranks: Int32Array): void;
  /**
   * Records calls in the launcher's file from now on, which is unnamed and FLIGHT_BYTES long, and closes it. False for
   * another file, which is left alone, where there is no memory, and once there are communicators.
   */
  flightOpen(file: number): boolean;
  /** What this rank does from now on, in update `step` (0 before the first), for whoever reads the record. */
  flightPhase(step: number, phase: string): void;
  /** A copy of the record: its layout is native/node/flight_recorder.h's. */
  flightRecord(): Uint8Array;

  /** prctl(PR_SET_PDEATHSIG, SIGKILL), and exits at once if the parent is no longer `parentPid`. */
  dieWithParent(parentPid: number): void;
  /** Cores this process may use (sched_getaffinity and the cgroup quota). */
  cpuCount(): number;
  /**
   * Memory that another process can hold beyond the end of this one, through its file descriptor, which is returned.
   * @param reserved bytes at its beginning that are taken at once: MB_MEMORY where they are not there
   */
  memoryCreate(bytes: number, reserved: number): number;
  /** A part of such memory, from a multiple of 4096 on. Unmapped with the last reference to the buffer. */
  memoryMap(fd: number, offset: number, bytes: number): ArrayBuffer;
  /** CRC-32 of each block of some bytes, by threads of their own. The memory must not change meanwhile. */
  blockSums(memory: Uint8Array, block: number): Promise<Uint32Array>;

  /**
   * A byte-level BPE tokenizer of this thread, native/tokenizer/bpe.h: `tokens` are the bytes of all tokens, `ends` where
   * each ends, `merges` left, right and new id of each, `added` id and kind of each (1 looked for in normalized text, 2
   * not in the vocabulary). `flags`: 1 prefix space, 2 ignore merges, 4 normal form C.
   */
  bpeCreate(
    tokens: Uint8Array,
    ends: Uint32Array,
    merges: Uint32Array,
    added: Uint32Array,
    pattern: number,
    flags: number,
  ): number;
  bpeFree(tokenizer: number): void;
  /**
   * Ids of UTF-8 text. Null where it must be brought into normal form C first: then its sections between added tokens are
   * encoded one by one, with `section`.
   */
  bpeEncode(tokenizer: number, text: Uint8Array, section: boolean): Int32Array | null;
  bpeCount(tokenizer: number, text: Uint8Array, section: boolean): number | null;
  /** Bytes of tokens put end to end; of an id without a token none. */
  bpeDecode(tokenizer: number, ids: Int32Array): Uint8Array;
}
