// A thin layer over cuDNN's backend descriptors: owned descriptors, an operation graph under construction, and the
// finished plan. Failures throw CudnnError, which attention.cc catches: it does not leave this backend.
#pragma once
#include <stdint.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/libs/abi_cudnn.h"

namespace mb::cuda {

struct CudnnError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws unless the status is success.
void cudnn_check(cudnn::Status status, const char* what);

class Descriptor {
 public:
  explicit Descriptor(cudnn::DescriptorType type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : raw_(other.raw_) { other.raw_ = nullptr; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;

  cudnn::RawDescriptor raw() const { return raw_; }
  Descriptor& set(cudnn::Attribute attribute, cudnn::AttributeType type, int64_t count, const void* values);
  Descriptor& set(cudnn::Attribute attribute, const std::vector<int64_t>& values);
  Descriptor& set(cudnn::Attribute attribute, int64_t value);
  Descriptor& set(cudnn::Attribute attribute, float value);
  Descriptor& set(cudnn::Attribute attribute, bool value);
  Descriptor& set(cudnn::Attribute attribute, cudnn::RawDescriptor value);
  Descriptor& set(cudnn::Attribute attribute, cudnn::DataType value);
  Descriptor& finalize(const char* what);
  bool try_finalize();
  // Number of elements that the attribute has; up to `room` of them are stored.
  int64_t get(cudnn::Attribute attribute, cudnn::AttributeType type, int64_t room, void* values) const;

 private:
  cudnn::RawDescriptor raw_ = nullptr;
};

// What an execution binds: pairs of a tensor's id and its address (device memory, or host memory for scalars).
struct Binding {
  int64_t id;
  void* address;
};

class Plan {
 public:
  int64_t workspace_bytes() const { return workspace_bytes_; }
  void execute(cudnn::Handle handle, const std::vector<Binding>& bindings, void* workspace) const;

 private:
  friend class Graph;
  std::vector<Descriptor> parts_;  // graph, operations, tensors, configurations: the plan refers to them
  std::vector<Descriptor> plan_;   // one
  int64_t workspace_bytes_ = 0;
};

using Dims = std::vector<int64_t>;
using Tensor = cudnn::RawDescriptor;

// Operations in the order of the calls. All compute in float32.
class Graph {
 public:
  // Tensors in memory carry an id of the caller, below 100. Alignment is 16 bytes.
  Tensor memory(int64_t id, const Dims& dims, const Dims& strides, cudnn::DataType type);
  Tensor virtual_tensor(const Dims& dims, const Dims& strides, cudnn::DataType type = cudnn::kFloat);
  Tensor host_scalar(int64_t id, cudnn::DataType type = cudnn::kFloat);

  void matmul(Tensor a, Tensor b, Tensor c);
  // y = mode(x[, b]); BINARY_SELECT: y = t ? x : b.
  void Pointwise(cudnn::Pointwise mode, Tensor x, Tensor b, Tensor y, Tensor t = nullptr,
                 cudnn::DataType precision = cudnn::kFloat, int64_t axis = -1);
  void reduce(cudnn::Reduction op, Tensor x, Tensor y);
  void reshape(Tensor x, Tensor y);

  // The first plan of the library's heuristics that can be made; throws if there is none. The graph is spent.
  Plan build(cudnn::Handle handle);

 private:
  Tensor add(const Dims& dims, const Dims& strides, cudnn::DataType type, int64_t id, bool is_virtual, bool by_value);
  cudnn::RawDescriptor keep(Descriptor descriptor);
  void Operation(Descriptor descriptor);

  int64_t next_virtual_ = 100;
  std::vector<Descriptor> parts_;
  std::vector<cudnn::RawDescriptor> operations_;
};

}  // namespace mb::cuda
