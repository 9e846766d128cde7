#include "node/addon.h"

#include <unistd.h>

#include "cpu/backend.h"

namespace mb::node {

Addon::Addon(Napi::Env env, Napi::Object exports) : state_(*new State) {
  env.AddCleanupHook([this] { thread_ends(); });
  state_.cpu = mb_cpu_backend();
  Napi::Float64Array args = Napi::Float64Array::New(env, kArgs);
  args_ = args.Data();
  args_reference_ = Napi::Persistent(args.As<Napi::Object>());
  DefineAddon(exports, {
                           InstanceValue("abi", Napi::Number::New(env, MB_ABI), napi_enumerable),
                           InstanceValue("args", args, napi_enumerable),
                           InstanceMethod<&Addon::load_cuda>("loadCuda"),
                           InstanceMethod<&Addon::describe>("describe"),
                           InstanceMethod<&Addon::device_count>("deviceCount"),
                           InstanceMethod<&Addon::open>("open"),
                           InstanceMethod<&Addon::close>("close"),
                           InstanceMethod<&Addon::device_info>("info"),
                           InstanceMethod<&Addon::handles>("handles"),
                           InstanceMethod<&Addon::arena_create>("arenaCreate"),
                           InstanceMethod<&Addon::host_arena_create>("hostArenaCreate"),
                           InstanceMethod<&Addon::arena_free>("arenaFree"),
                           InstanceMethod<&Addon::write>("write"),
                           InstanceMethod<&Addon::read>("read"),
                           InstanceMethod<&Addon::fetch_begin>("fetchBegin"),
                           InstanceMethod<&Addon::fetch_wait>("fetchWait"),
                           InstanceMethod<&Addon::copy>("copy"),
                           InstanceMethod<&Addon::host_register>("hostRegister"),
                           InstanceMethod<&Addon::host_unregister>("hostUnregister"),
                           InstanceMethod<&Addon::read_async>("readAsync"),
                           InstanceMethod<&Addon::run>("run"),
                           InstanceMethod<&Addon::event_create>("eventCreate"),
                           InstanceMethod<&Addon::event_destroy>("eventDestroy"),
                           InstanceMethod<&Addon::record>("record"),
                           InstanceMethod<&Addon::wait>("wait"),
                           InstanceMethod<&Addon::synchronize>("synchronize"),
                           InstanceMethod<&Addon::capture_begin>("captureBegin"),
                           InstanceMethod<&Addon::capture_end>("captureEnd"),
                           InstanceMethod<&Addon::graph_launch>("graphLaunch"),
                           InstanceMethod<&Addon::graph_destroy>("graphDestroy"),
                           InstanceMethod<&Addon::elapsed_ms>("elapsedMs"),
                           InstanceMethod<&Addon::attention_workspace>("attentionWorkspace"),
                           InstanceMethod<&Addon::comm_make_id>("commMakeId"),
                           InstanceMethod<&Addon::comm_create>("commCreate"),
                           InstanceMethod<&Addon::comm_destroy>("commDestroy"),
                           InstanceMethod<&Addon::comm_abort>("commAbort"),
                           InstanceMethod<&Addon::watch>("watch"),
                           InstanceMethod<&Addon::watch_stop>("watchStop"),
                           InstanceMethod<&Addon::watch_check>("watchCheck"),
                           InstanceMethod<&Addon::all_reduce>("allReduce"),
                           InstanceMethod<&Addon::reduce_scatter>("reduceScatter"),
                           InstanceMethod<&Addon::all_gather>("allGather"),
                           InstanceMethod<&Addon::broadcast>("broadcast"),
                           InstanceMethod<&Addon::p2p>("p2p"),
                           InstanceMethod<&Addon::all_to_all>("allToAll"),
                           InstanceMethod<&Addon::barrier>("barrier"),
                           InstanceMethod<&Addon::comm_share>("commShare"),
                           InstanceMethod<&Addon::comm_unshare>("commUnshare"),
                           InstanceMethod<&Addon::comm_run>("commRun"),
                           InstanceMethod<&Addon::comm_compare>("commCompare"),
                           InstanceMethod<&Addon::flight_open>("flightOpen"),
                           InstanceMethod<&Addon::flight_phase>("flightPhase"),
                           InstanceMethod<&Addon::flight_record>("flightRecord"),
                           InstanceMethod<&Addon::die_with_parent>("dieWithParent"),
                           InstanceMethod<&Addon::cpu_count>("cpuCount"),
                           InstanceMethod<&Addon::memory_create>("memoryCreate"),
                           InstanceMethod<&Addon::memory_map>("memoryMap"),
                           InstanceMethod<&Addon::block_sums>("blockSums"),
                           InstanceMethod<&Addon::bpe_create>("bpeCreate"),
                           InstanceMethod<&Addon::bpe_free>("bpeFree"),
                           InstanceMethod<&Addon::bpe_encode>("bpeEncode"),
                           InstanceMethod<&Addon::bpe_count>("bpeCount"),
                           InstanceMethod<&Addon::bpe_decode>("bpeDecode"),
                       });
}

// Where a worker thread ends, whoever ended it, the process goes on, and so may other ranks in it. Nothing on the CPU
// waits for long once it is told; called before what jobs call back into is freed.
void Addon::thread_ends() {
  if (gettid() == getpid() || state_.cuda != nullptr) return;
  state_.devices.for_each([](const Device& device) { mb_cpu_thread_ended(device.device); });
  state_.jobs.wait();
  state_.watchdogs.clear();
  state_.comms.clear();
  state_.events.clear();
  state_.arenas.clear();
  state_.devices.clear();
  state_.recorder.reset();
}

NODE_API_ADDON(Addon)

}  // namespace mb::node
