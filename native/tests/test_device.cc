#include <cstring>

#include "tests/harness.h"

namespace mb::test {
namespace {

void info(Context& c, int) {
  mb_device_info found;
  c.is(c.table->info(c.device, &found) == MB_OK && found.name[0] != '\0', "info has no name");
  c.is(found.total_bytes > 0 && found.free_bytes > 0 && found.free_bytes <= found.total_bytes, "memory sizes");
  int count = 0;
  c.is(c.table->device_count(&count) == MB_OK && count >= 1, "device_count");
  c.is(c.table->describe()[0] == '{', "describe is not JSON");
}

void memory(Context& c, int) {
  void* ptr = nullptr;
  c.is(c.table->alloc(c.device, int64_t{1} << 50, &ptr) == MB_ERR_MEMORY, "a petabyte was granted");
  c.is(std::string(c.table->last_error()).find("1125899906842624") != std::string::npos,
       std::string("the text does not name the bytes: ") + c.table->last_error());
  c.is(c.table->alloc(c.device, 100003, &ptr) == MB_OK, "alloc");
  c.is(reinterpret_cast<uintptr_t>(ptr) % 64 == 0, "alignment");
  c.table->release(c.device, ptr);
}

void transfers(Context& c, int) {
  const Tensor a(c, c.random.uniforms(1000), MB_F32);
  const Tensor b(c, 1000, MB_F32);
  const mb_buf from = a.buf(), to = b.buf(), small = a.part(0, 10);
  c.is(c.table->copy(c.device, 0, &from, &to) == MB_OK, "copy");
  c.equal("copy", b.read(), a.values());
  c.is(c.table->copy(c.device, 0, &small, &to) == MB_ERR_ARGUMENT, "a copy of unequal sizes");

  int64_t tickets[16];
  for (int64_t& ticket : tickets) c.is(c.table->fetch_begin(c.device, 0, &small, &ticket) == MB_OK, "fetch_begin");
  int64_t more = 0;
  c.is(c.table->fetch_begin(c.device, 0, &small, &more) == MB_ERR_ARGUMENT, "a 17th fetch");
  for (int i = 15; i >= 0; --i) {
    float found[10];
    c.is(c.table->fetch_wait(c.device, tickets[i], found) == MB_OK, "fetch_wait");
    c.equal("fetch", Values(found, found + 10), Values(a.values().begin(), a.values().begin() + 10));
  }
  float unused[10];
  c.is(c.table->fetch_wait(c.device, tickets[0], unused) == MB_ERR_ARGUMENT, "a ticket was waited for twice");
  const Tensor large(c, 65537, MB_U8);
  const mb_buf beyond = large.buf();
  c.is(c.table->fetch_begin(c.device, 0, &beyond, &more) == MB_ERR_ARGUMENT, "a fetch of more than 64 KiB");
}

void host_memory(Context& c, int) {
  constexpr int64_t kCount = 100003;
  void* ptr = nullptr;
  c.is(c.table->host_alloc(c.device, 0, &ptr) == MB_ERR_ARGUMENT, "no bytes of host memory");
  c.is(c.table->host_alloc(c.device, int64_t{1} << 50, &ptr) == MB_ERR_MEMORY, "a petabyte of host memory was granted");
  c.is(c.table->host_alloc(c.device, kCount * 4, &ptr) == MB_OK, "host_alloc");
  const Tensor a(c, c.random.uniforms(kCount), MB_F32);
  const Tensor b(c, kCount, MB_F32);
  const mb_buf from = a.buf(), to = b.buf(), host = {ptr, kCount * 4, MB_F32, 0};
  c.is(c.table->copy(c.device, 4, &from, &host) == MB_OK && c.table->synchronize(c.device) == MB_OK,
       "copy to the host");
  const float* const found = static_cast<const float*>(ptr);
  c.equal("in host memory", Values(found, found + kCount), a.values());
  c.is(c.table->copy(c.device, 0, &host, &to) == MB_OK, "copy from the host");
  c.equal("back on the device", b.read(), a.values());
  c.table->host_release(c.device, ptr);
}

void events(Context& c, int) {
  const auto make = [&](bool timed) {
    mb_event* event = nullptr;
    c.is(c.table->event_create(c.device, timed, &event) == MB_OK && event != nullptr, "event_create");
    return event;
  };
  mb_event* const begin = make(true);
  mb_event* const end = make(true);
  mb_event* const plain = make(false);
  const auto refused = [&](int status, const char* text) {
    c.is(status == MB_ERR_ARGUMENT && std::string(c.table->last_error()).find(text) != std::string::npos, text);
  };
  double ms = -1;
  refused(c.table->wait(c.device, 1, begin), "never recorded");
  refused(c.table->elapsed_ms(c.device, begin, end, &ms), "never recorded");
  c.is(c.table->record(c.device, 0, begin) == MB_OK && c.table->wait(c.device, 1, begin) == MB_OK, "record, wait");
  const Tensor x(c, 100000, MB_F32);
  c.run(MB_OP_FILL, {&x}, {100000, 2});
  c.is(c.table->record(c.device, 0, end) == MB_OK && c.table->synchronize(c.device) == MB_OK, "record, synchronize");
  c.is(c.table->elapsed_ms(c.device, begin, end, &ms) == MB_OK && ms > 0 && ms < 60000, "elapsed_ms");
  c.is(c.table->record(c.device, 0, plain) == MB_OK, "record without a time");
  refused(c.table->elapsed_ms(c.device, begin, plain, &ms), "not made to measure time");
  for (mb_event* event : {begin, end, plain}) c.table->event_destroy(c.device, event);
  // Far more than may exist at once where events are numbered.
  for (int i = 0; i < 2000; ++i) c.table->event_destroy(c.device, make(false));
}

}  // namespace

const std::vector<Case> device_cases = {
    {"info", info, false},           {"memory", memory, false},
    {"transfers", transfers, false}, {"host_memory", host_memory, false},
    {"events", events, false},
};

}  // namespace mb::test
