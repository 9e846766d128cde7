#include "cpu/backend.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "comm/table.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/host.h"
#include "cpu/device.h"

namespace mb {
namespace {

using ll = long long;

// The best table this machine runs, or the one that MBRIDGE_CPU_ISA names (base, v3, v4: tests compare them).
const Kernels* choose_kernels() {
  const Kernels* best = &kernels_base();
  const Kernels* found[3] = {best, nullptr, nullptr};
#if defined(MB_X86_LEVELS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    found[1] = best = &kernels_v3();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      found[2] = best = &kernels_v4();
    }
  }
#endif
  const char* wanted = getenv("MBRIDGE_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (const Kernels* kernels : found) {
    if (kernels != nullptr && strcmp(kernels->name, wanted) == 0) return kernels;
  }
  fail(MB_ERR_UNSUPPORTED, "MBRIDGE_CPU_ISA is %s; this machine and build have up to %s (base, v3, v4)", wanted,
       best->name);
  return nullptr;
}

int device_count(int* count) {
  *count = 1;
  return MB_OK;
}

int open_device(int index, int threads, mb_device** out) {
  if (index != 0) return fail(MB_ERR_ARGUMENT, "open: CPU device %d does not exist, only 0", index);
  if (threads < 1 || threads > 1024) return fail(MB_ERR_ARGUMENT, "open: %d threads, expected 1 to 1024", threads);
  const Kernels* kernels = choose_kernels();
  if (kernels == nullptr) return MB_ERR_UNSUPPORTED;
  Pages packing;
  const int status = commit_pages(gemm_packing_floats(*kernels, threads) * 4, &packing);
  if (status != MB_OK) return status;
  *out = new mb_device(threads, *kernels);
  (*out)->packing = packing;
  return MB_OK;
}

void close_device(mb_device* device) { delete device; }

int info(mb_device* device, mb_device_info* out) {
  const HostMemory memory = host_memory();
  *out = {};
  snprintf(out->name, sizeof(out->name), "%s", cpu_model().c_str());
  out->total_bytes = memory.total;
  out->free_bytes = memory.available;
  out->threads = device->pool.threads();
  return MB_OK;
}

int alloc(mb_device* device, int64_t bytes, void** out) {
  if (bytes < 1) return fail(MB_ERR_ARGUMENT, "alloc: %lld bytes", static_cast<ll>(bytes));
  Pages pages;
  const int status = commit_pages(bytes, &pages);
  if (status != MB_OK) return status;
  const std::lock_guard<std::mutex> lock(device->mutex);
  device->arenas[pages.ptr] = pages;
  *out = pages.ptr;
  return MB_OK;
}

void release(mb_device* device, void* ptr) {
  const std::lock_guard<std::mutex> lock(device->mutex);
  const auto entry = device->arenas.find(ptr);
  if (entry == device->arenas.end()) return;
  release_pages(entry->second);
  device->arenas.erase(entry);
}

int write_buf(mb_device*, int, const mb_buf* dst, const void* src) {
  memcpy(dst->ptr, src, static_cast<size_t>(dst->bytes));
  return MB_OK;
}

int read_buf(mb_device*, int, const mb_buf* src, void* dst) {
  memcpy(dst, src->ptr, static_cast<size_t>(src->bytes));
  return MB_OK;
}

int fetch_begin(mb_device* device, int, const mb_buf* src, int64_t* ticket) {
  if (src->bytes > 65536) {
    return fail(MB_ERR_ARGUMENT, "fetch_begin: %lld bytes, at most 65536", static_cast<ll>(src->bytes));
  }
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (device->fetches.size() >= 16) return fail(MB_ERR_ARGUMENT, "fetch_begin: 16 fetches are outstanding already");
  const auto* bytes = static_cast<const uint8_t*>(src->ptr);
  *ticket = device->next_ticket++;
  device->fetches[*ticket].assign(bytes, bytes + src->bytes);
  return MB_OK;
}

int fetch_wait(mb_device* device, int64_t ticket, void* dst) {
  const std::lock_guard<std::mutex> lock(device->mutex);
  const auto entry = device->fetches.find(ticket);
  if (entry == device->fetches.end()) {
    return fail(MB_ERR_ARGUMENT, "fetch_wait: ticket %lld is not outstanding", static_cast<ll>(ticket));
  }
  memcpy(dst, entry->second.data(), entry->second.size());
  device->fetches.erase(entry);
  return MB_OK;
}

int copy(mb_device*, int, const mb_buf* src, const mb_buf* dst) {
  if (src->bytes != dst->bytes) {
    return fail(MB_ERR_ARGUMENT, "copy: source has %lld bytes, destination %lld", static_cast<ll>(src->bytes),
                static_cast<ll>(dst->bytes));
  }
  memmove(dst->ptr, src->ptr, static_cast<size_t>(src->bytes));
  return MB_OK;
}

int host_register(mb_device*, void*, int64_t) { return MB_OK; }

int host_unregister(mb_device*, void*) { return MB_OK; }

int read_async(mb_device*, int, const mb_buf* src, void* dst) {
  memcpy(dst, src->ptr, static_cast<size_t>(src->bytes));
  return MB_OK;
}

int event_create(mb_device*, int timed, mb_event** out) {
  *out = new mb_event{timed != 0};
  return MB_OK;
}

void event_destroy(mb_device*, mb_event* event) { delete event; }

int no_graphs() { return fail(MB_ERR_UNSUPPORTED, "the CPU runs every call at once and keeps none"); }
int capture_begin(mb_device*, int) { return no_graphs(); }
int capture_end(mb_device*, int, mb_graph**) { return no_graphs(); }
int graph_launch(mb_device*, int, mb_graph*) { return no_graphs(); }
void graph_destroy(mb_device*, mb_graph*) {}

int record(mb_device*, int, mb_event* event) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  event->seconds = std::chrono::duration<double>(now).count();
  event->recorded = true;
  return MB_OK;
}

int wait_event(mb_device*, int stream, mb_event* event) {
  return event->recorded ? MB_OK
                         : fail(MB_ERR_ARGUMENT, "stream %d waits for an event that was never recorded", stream);
}

int synchronize(mb_device*) { return MB_OK; }

int elapsed_ms(mb_device*, mb_event* first, mb_event* second, double* ms) {
  for (const mb_event* event : {first, second}) {
    if (!event->timed) return fail(MB_ERR_ARGUMENT, "elapsed_ms: the event was not made to measure time");
    if (!event->recorded) return fail(MB_ERR_ARGUMENT, "elapsed_ms: the event was never recorded");
  }
  *ms = 1e3 * (second->seconds - first->seconds);
  return MB_OK;
}

int attention_workspace(mb_device* device, int dtype, int64_t b, int64_t sq, int64_t skv, int64_t hq, int64_t hkv,
                        int64_t d, int64_t, int, int64_t* bytes, char kernel[64]) {
  if (dtype != MB_F32) {
    return fail(MB_ERR_UNSUPPORTED, "attention: %s, and the CPU backend computes in float32", dtype_name(dtype));
  }
  const AttentionSizes z = {b, sq, skv, hq, hkv, d};
  if (const int status = check_sizes(z)) return status;
  const int64_t forward = attention_bytes(device, z, false);
  const int64_t backward = attention_bytes(device, z, true);
  *bytes = forward > backward ? forward : backward;
  snprintf(kernel, 64, "mbridge cpu %s", device->kernels.name);
  return MB_OK;
}

std::string describe_text() {
  std::string model;
  for (const char c : cpu_model()) {
    if (c == '"' || c == '\\') model += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) model += c;
  }
  const Kernels* kernels = choose_kernels();
  char text[512];
  snprintf(text, sizeof(text), R"({"backend":"cpu","model":"%s","cores":%d,"kernels":"%s","compiler":"%s"})",
           model.c_str(), usable_cores(), kernels == nullptr ? "none" : kernels->name, __VERSION__);
  return text;
}

const char* describe() {
  static const std::string text = describe_text();
  return text.c_str();
}

}  // namespace
}  // namespace mb

const mb_backend* mb_cpu_backend() {
  using namespace mb;
  static const mb_backend backend = {
      .abi = MB_ABI,
      .name = "cpu",
      .last_error = last_error,
      .device_count = device_count,
      .open = open_device,
      .close = close_device,
      .info = info,
      .alloc = alloc,
      .release = release,
      .host_alloc = alloc,  // the same memory
      .host_release = release,
      .write = write_buf,
      .read = read_buf,
      .fetch_begin = fetch_begin,
      .fetch_wait = fetch_wait,
      .copy = copy,
      .host_register = host_register,
      .host_unregister = host_unregister,
      .read_async = read_async,
      .event_create = event_create,
      .event_destroy = event_destroy,
      .record = record,
      .wait = wait_event,
      .synchronize = synchronize,
      .capture_begin = capture_begin,
      .capture_end = capture_end,
      .graph_launch = graph_launch,
      .graph_destroy = graph_destroy,
      .elapsed_ms = elapsed_ms,
      .attention_workspace = attention_workspace,
      .describe = describe,
      .ops =
          {
#define MB_OP(NAME, name, tensors, scalars) op_##name,
#include "core/ops.def"
#undef MB_OP
          },
      .comm = comm_table(),
  };
  return &backend;
}
