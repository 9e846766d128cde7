// What the handles stand for. Each object keeps alive what it was made from, so the order of closing does not matter.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "core/abi.h"
#include "node/call_check.h"
#include "node/flight_recorder.h"

namespace mb::node {

struct Device {
  Device(const mb_backend* table, mb_device* opened) : backend(table), device(opened) {}
  ~Device() { backend->close(device); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const mb_backend* const backend;
  mb_device* const device;
  std::unordered_map<int64_t, int64_t> fetches;  // bytes of each outstanding ticket
  bool capturing = false;                        // what is called is kept, and not run
};

struct Arena {
  Arena(std::shared_ptr<Device> owner, void* memory, int64_t size, bool of_host)
      : device(std::move(owner)), ptr(memory), bytes(size), host(of_host) {}
  ~Arena() { (host ? device->backend->host_release : device->backend->release)(device->device, ptr); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  const std::shared_ptr<Device> device;
  void* const ptr;
  const int64_t bytes;
  const bool host;
};

struct Event {
  Event(std::shared_ptr<Device> owner, mb_event* created) : device(std::move(owner)), event(created) {}
  ~Event() { device->backend->event_destroy(device->device, event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  const std::shared_ptr<Device> device;
  mb_event* const event;
};

struct Graph {
  Graph(std::shared_ptr<Device> owner, mb_graph* captured) : device(std::move(owner)), graph(captured) {}
  ~Graph() { device->backend->graph_destroy(device->device, graph); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  const std::shared_ptr<Device> device;
  mb_graph* const graph;
};

struct Comm {
  Comm(std::shared_ptr<Device> owner, mb_comm* created, int members, std::shared_ptr<FlightRecorder> records,
       flight::Group* recorded)
      : device(std::move(owner)), comm(created), size(members), recorder(std::move(records)), flight(recorded) {}
  ~Comm() {
    table().destroy(comm);
    if (flight != nullptr) flight->live = 0;
  }
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;
  const mb_comm_table& table() const { return device->backend->comm; }

  const std::shared_ptr<Device> device;
  mb_comm* const comm;
  const int size;
  const std::shared_ptr<FlightRecorder> recorder;  // whose memory `flight` is
  flight::Group* const flight;                     // null where there was no room
  std::unique_ptr<CallCheck> calls;                // where they are compared
};

}  // namespace mb::node
