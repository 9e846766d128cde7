#include "cuda/ops/cudnn_graph.h"

#include <utility>

#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

using namespace cudnn;

std::string last_message() {
  char message[512] = "";
  load_cudnn().GetLastErrorString(message, sizeof message);
  return message;
}

}  // namespace

void cudnn_check(Status status, const char* what) {
  if (status == kSuccess) return;
  throw CudnnError("cuDNN " + load_cudnn().version + ": " + what + ": " + load_cudnn().GetErrorString(status) + ": " +
                   last_message());
}

// ---- Descriptor ----------------------------------------------------------------------------------------------------

Descriptor::Descriptor(DescriptorType type) {
  cudnn_check(load_cudnn().BackendCreateDescriptor(type, &raw_), "create descriptor");
}

Descriptor::~Descriptor() {
  if (raw_) load_cudnn().BackendDestroyDescriptor(raw_);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(raw_, other.raw_);
  return *this;
}

Descriptor& Descriptor::set(Attribute attribute, AttributeType type, int64_t count, const void* values) {
  const Status status = load_cudnn().BackendSetAttribute(raw_, attribute, type, count, values);
  if (status != kSuccess) cudnn_check(status, ("set attribute " + std::to_string(attribute)).c_str());
  return *this;
}

Descriptor& Descriptor::set(Attribute attribute, const std::vector<int64_t>& values) {
  return set(attribute, kTypeInt64, static_cast<int64_t>(values.size()), values.data());
}
Descriptor& Descriptor::set(Attribute attribute, int64_t value) { return set(attribute, kTypeInt64, 1, &value); }
Descriptor& Descriptor::set(Attribute attribute, float value) { return set(attribute, kTypeFloat, 1, &value); }
Descriptor& Descriptor::set(Attribute attribute, bool value) { return set(attribute, kTypeBoolean, 1, &value); }
Descriptor& Descriptor::set(Attribute attribute, RawDescriptor value) {
  return set(attribute, kTypeDescriptor, 1, &value);
}
Descriptor& Descriptor::set(Attribute attribute, DataType value) { return set(attribute, kTypeDataType, 1, &value); }

Descriptor& Descriptor::finalize(const char* what) {
  cudnn_check(load_cudnn().BackendFinalize(raw_), what);
  return *this;
}

bool Descriptor::try_finalize() { return load_cudnn().BackendFinalize(raw_) == kSuccess; }

int64_t Descriptor::get(Attribute attribute, AttributeType type, int64_t room, void* values) const {
  int64_t count = 0;
  cudnn_check(load_cudnn().BackendGetAttribute(raw_, attribute, type, room, &count, values), "get attribute");
  return count;
}

// ---- Plan ----------------------------------------------------------------------------------------------------------

void Plan::execute(Handle handle, const std::vector<Binding>& bindings, void* workspace) const {
  std::vector<int64_t> ids;
  std::vector<void*> addresses;
  for (const Binding& binding : bindings) {
    ids.push_back(binding.id);
    addresses.push_back(binding.address);
  }
  Descriptor pack(kDescVariantPack);
  pack.set(kPackPointers, kTypeVoidPtr, static_cast<int64_t>(addresses.size()), addresses.data())
      .set(kPackUniqueIds, ids)
      .set(kPackWorkspace, kTypeVoidPtr, 1, &workspace)
      .finalize("variant pack");
  cudnn_check(load_cudnn().BackendExecute(handle, plan_.front().raw(), pack.raw()), "execute");
}

// ---- Graph ---------------------------------------------------------------------------------------------------------

RawDescriptor Graph::keep(Descriptor descriptor) {
  parts_.push_back(std::move(descriptor));
  return parts_.back().raw();
}

void Graph::Operation(Descriptor descriptor) { operations_.push_back(keep(std::move(descriptor))); }

Tensor Graph::add(const Dims& dims, const Dims& strides, DataType type, int64_t id, bool is_virtual, bool by_value) {
  Descriptor tensor(kDescTensor);
  tensor.set(kTensorDataType, type)
      .set(kTensorDimensions, dims)
      .set(kTensorStrides, strides)
      .set(kTensorUniqueId, id)
      .set(kTensorAlignment, int64_t{16});
  if (is_virtual) tensor.set(kTensorIsVirtual, true);  // these two are left unset rather than set to false
  if (by_value) tensor.set(kTensorIsByValue, true);
  tensor.finalize("tensor");
  return keep(std::move(tensor));
}

Tensor Graph::memory(int64_t id, const Dims& dims, const Dims& strides, DataType type) {
  return add(dims, strides, type, id, false, false);
}

Tensor Graph::virtual_tensor(const Dims& dims, const Dims& strides, DataType type) {
  return add(dims, strides, type, next_virtual_++, true, false);
}

Tensor Graph::host_scalar(int64_t id, DataType type) { return add({1, 1, 1, 1}, {1, 1, 1, 1}, type, id, false, true); }

void Graph::matmul(Tensor a, Tensor b, Tensor c) {
  Descriptor matmul(kDescMatmul);
  matmul.set(kMatmulCompType, kFloat).finalize("matmul");
  Descriptor operation(kDescOpMatmul);
  operation.set(kOpMatmulA, a).set(kOpMatmulB, b).set(kOpMatmulC, c).set(kOpMatmulDesc, matmul.raw());
  operation.finalize("matmul operation");
  keep(std::move(matmul));
  Operation(std::move(operation));
}

void Graph::Pointwise(cudnn::Pointwise mode, Tensor x, Tensor b, Tensor y, Tensor t, DataType precision, int64_t axis) {
  Descriptor pointwise(kDescPointwise);
  pointwise.set(kPointwiseMode, kTypePointwiseMode, 1, &mode).set(kPointwiseMathPrec, precision);
  if (axis >= 0) pointwise.set(kPointwiseAxis, axis);
  pointwise.finalize("pointwise");
  Descriptor operation(kDescOpPointwise);
  operation.set(kOpPointwiseDesc, pointwise.raw()).set(kOpPointwiseX, x).set(kOpPointwiseY, y);
  if (b) operation.set(kOpPointwiseB, b);
  if (t) operation.set(kOpPointwiseT, t);
  operation.set(kOpPointwiseAlpha1, 1.0f).set(kOpPointwiseAlpha2, 1.0f).finalize("pointwise operation");
  keep(std::move(pointwise));
  Operation(std::move(operation));
}

void Graph::reduce(Reduction op, Tensor x, Tensor y) {
  Descriptor reduction(kDescReduction);
  reduction.set(kReductionOperator, kTypeReductionOperator, 1, &op).set(kReductionCompType, kFloat);
  reduction.finalize("reduction");
  Descriptor operation(kDescOpReduction);
  operation.set(kOpReductionX, x).set(kOpReductionY, y).set(kOpReductionDesc, reduction.raw());
  operation.finalize("reduction operation");
  keep(std::move(reduction));
  Operation(std::move(operation));
}

void Graph::reshape(Tensor x, Tensor y) {
  Descriptor operation(kDescOpReshape);
  operation.set(kOpReshapeX, x).set(kOpReshapeY, y).finalize("reshape operation");
  Operation(std::move(operation));
}

Plan Graph::build(Handle handle) {
  Descriptor graph(kDescGraph);
  graph.set(kGraphOps, kTypeDescriptor, static_cast<int64_t>(operations_.size()), operations_.data())
      .set(kGraphHandle, kTypeHandle, 1, &handle)
      .finalize("operation graph");
  std::string refusals;
  for (HeurMode mode : {kHeurA, kHeurFallback}) {
    Descriptor heuristics(kDescEngineHeur);
    heuristics.set(kEngineHeurGraph, graph.raw()).set(kEngineHeurMode, kTypeHeurMode, 1, &mode);
    if (!heuristics.try_finalize()) {
      refusals += "; heuristics: " + last_message();
      continue;
    }
    const int64_t count = heuristics.get(kEngineHeurResults, kTypeDescriptor, 0, nullptr);
    std::vector<Descriptor> configs;
    std::vector<RawDescriptor> raw;
    for (int64_t i = 0; i < count; i++) raw.push_back(configs.emplace_back(kDescEngineConfig).raw());
    const int64_t filled = count > 0 ? heuristics.get(kEngineHeurResults, kTypeDescriptor, count, raw.data()) : 0;
    for (int64_t i = 0; i < filled; i++) {
      Descriptor plan(kDescPlan);
      plan.set(kPlanEngineConfig, raw[i]);
      if (!plan.try_finalize()) {
        refusals += "; configuration " + std::to_string(i) + ": " + last_message();
        continue;
      }
      Plan result;
      plan.get(kPlanWorkspaceSize, kTypeInt64, 1, &result.workspace_bytes_);
      result.plan_.push_back(std::move(plan));
      result.parts_ = std::move(parts_);
      for (Descriptor& config : configs) result.parts_.push_back(std::move(config));
      result.parts_.push_back(std::move(graph));
      return result;
    }
  }
  throw CudnnError("cuDNN " + load_cudnn().version + " has no engine for this graph" + refusals);
}

}  // namespace mb::cuda
