// The addon's functions, as src/engine/binding.ts types them.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "core/abi.h"
#include "node/background.h"
#include "node/flight_recorder.h"
#include "node/handles.h"
#include "node/objects.h"
#include "node/watchdog.h"
#include "tokenizer/bpe.h"

namespace mb::node {

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env env, Napi::Object exports);

 private:
  void thread_ends();

  using Info = const Napi::CallbackInfo&;
  static constexpr size_t kArgs = 4096;    // doubles of `args`
  static constexpr int64_t kTensors = 16;  // of one op
  static constexpr int64_t kScalars = 32;

  // backends.cc
  void load_cuda(Info info);
  Napi::Value describe(Info info);
  Napi::Value device_count(Info info);
  Napi::Value open(Info info);
  void close(Info info);
  Napi::Value device_info(Info info);
  Napi::Value handles(Info info);
  const mb_backend* backend(Info info, size_t i) const;

  // memory.cc
  Napi::Value arena_create(Info info);
  Napi::Value host_arena_create(Info info);
  Napi::Value create_arena(Info info, bool host);
  void arena_free(Info info);
  void write(Info info);
  void read(Info info);
  Napi::Value fetch_begin(Info info);
  Napi::Value fetch_wait(Info info);
  void copy(Info info);
  void host_register(Info info);
  void host_unregister(Info info);
  void read_async(Info info);

  // run.cc
  void run(Info info);
  Napi::Value event_create(Info info);
  void event_destroy(Info info);
  void record(Info info);
  void wait(Info info);
  void synchronize(Info info);
  void capture_begin(Info info);
  Napi::Value capture_end(Info info);
  void graph_launch(Info info);
  void graph_destroy(Info info);
  Napi::Value elapsed_ms(Info info);
  Napi::Value attention_workspace(Info info);

  // comms.cc
  Napi::Value comm_make_id(Info info);
  Napi::Value comm_create(Info info);
  void comm_destroy(Info info);
  void comm_abort(Info info);
  void all_reduce(Info info);
  void reduce_scatter(Info info);
  void all_gather(Info info);
  void broadcast(Info info);
  void p2p(Info info);
  void all_to_all(Info info);
  void barrier(Info info);
  Napi::Value comm_share(Info info);
  void comm_unshare(Info info);
  void comm_run(Info info);
  void comm_compare(Info info);
  // Makes a call in which the members wait for each other: records it, and compares it where that is asked for.
  template <typename Make>
  void together(Napi::Env env, Comm& of, int stream, const Call& call, Make make);

  // flight.cc
  Napi::Value flight_open(Info info);
  void flight_phase(Info info);
  Napi::Value flight_record(Info info);

  // watchdog.cc
  Napi::Value watch(Info info);
  void watch_stop(Info info);
  void watch_check(Info info);
  const std::shared_ptr<Watchdog>& watchdog(Info info) const;

  // process.cc
  void die_with_parent(Info info);
  Napi::Value cpu_count(Info info);
  Napi::Value memory_create(Info info);
  Napi::Value memory_map(Info info);
  Napi::Value block_sums(Info info);

  // tokenizers.cc
  Napi::Value bpe_create(Info info);
  void bpe_free(Info info);
  Napi::Value bpe_encode(Info info);
  Napi::Value bpe_count(Info info);
  Napi::Value bpe_decode(Info info);
  tokenizer::Bpe& bpe(Info info) const;
  bool bpe_ids(Info info, tokenizer::Ids& ids);

  // decode.cc: handles and tensors of a call; each throws MB_ARGUMENT for what does not exist or does not fit.
  const std::shared_ptr<Device>& device(Info info, size_t i) const;
  const std::shared_ptr<Comm>& comm(Info info, size_t i) const;
  mb_event* event(Info info, size_t i, const Device& owner) const;
  // Tensor `i` of a list of four numbers each, which is args where none is given, checked against its arena, which must
  // belong to `owner`. Absent: ptr null.
  mb_buf tensor(Napi::Env env, int64_t i, const Device& owner, const double* list = nullptr) const;
  // The same, and it must be there.
  mb_buf present(Napi::Env env, int64_t i, const Device& owner, const double* list = nullptr) const;
  // An op's arguments after its device or communicator: stream, number of the op (below `ops`), and what `args` holds.
  struct OpCall {
    int stream, nt, ns;
    int64_t op;
    mb_buf tensors[kTensors];
    const double* scalars;
  };
  OpCall op_call(Info info, const Device& owner, int64_t ops) const;

  // Held apart, and not freed as a process ends: collectives and devices may then be in use by other threads, or stuck
  // in a library, and waiting for them would keep it from exiting.
  struct State {
    const mb_backend* cpu = nullptr;
    const mb_backend* cuda = nullptr;
    std::string cuda_path;
    Handles<Device> devices;
    Handles<Arena> arenas;
    Handles<Comm> comms;
    Handles<Event> events;
    Handles<Graph> graphs;
    Handles<Watchdog> watchdogs;
    std::shared_ptr<FlightRecorder> recorder = std::make_shared<FlightRecorder>();
    Jobs jobs;
  };
  State& state_;
  Handles<tokenizer::Bpe> tokenizers_;  // no other thread has them: they end with the environment
  double* args_ = nullptr;
  Napi::ObjectReference args_reference_;
};

}  // namespace mb::node
