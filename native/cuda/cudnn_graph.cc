#include "cudnn_graph.h"

#include <utility>

#include "libs.h"

namespace mbcuda {
namespace {

using namespace cudnn;

std::string LastMessage() {
  char message[512] = "";
  LoadCudnn().GetLastErrorString(message, sizeof message);
  return message;
}

}  // namespace

void CudnnCheck(Status status, const char* what) {
  if (status == kSuccess) return;
  throw CudnnError("cuDNN " + LoadCudnn().version + ": " + what + ": " + LoadCudnn().GetErrorString(status) + ": " +
                   LastMessage());
}

// ---- Descriptor ----------------------------------------------------------------------------------------------------

Descriptor::Descriptor(DescriptorType type) {
  CudnnCheck(LoadCudnn().BackendCreateDescriptor(type, &raw_), "create descriptor");
}

Descriptor::~Descriptor() {
  if (raw_) LoadCudnn().BackendDestroyDescriptor(raw_);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(raw_, other.raw_);
  return *this;
}

Descriptor& Descriptor::Set(Attribute attribute, AttributeType type, int64_t count, const void* values) {
  const Status status = LoadCudnn().BackendSetAttribute(raw_, attribute, type, count, values);
  if (status != kSuccess) CudnnCheck(status, ("set attribute " + std::to_string(attribute)).c_str());
  return *this;
}

Descriptor& Descriptor::Set(Attribute attribute, const std::vector<int64_t>& values) {
  return Set(attribute, kTypeInt64, static_cast<int64_t>(values.size()), values.data());
}
Descriptor& Descriptor::Set(Attribute attribute, int64_t value) { return Set(attribute, kTypeInt64, 1, &value); }
Descriptor& Descriptor::Set(Attribute attribute, float value) { return Set(attribute, kTypeFloat, 1, &value); }
Descriptor& Descriptor::Set(Attribute attribute, bool value) { return Set(attribute, kTypeBoolean, 1, &value); }
Descriptor& Descriptor::Set(Attribute attribute, RawDescriptor value) {
  return Set(attribute, kTypeDescriptor, 1, &value);
}
Descriptor& Descriptor::Set(Attribute attribute, DataType value) { return Set(attribute, kTypeDataType, 1, &value); }

Descriptor& Descriptor::Finalize(const char* what) {
  CudnnCheck(LoadCudnn().BackendFinalize(raw_), what);
  return *this;
}

bool Descriptor::TryFinalize() { return LoadCudnn().BackendFinalize(raw_) == kSuccess; }

int64_t Descriptor::Get(Attribute attribute, AttributeType type, int64_t room, void* values) const {
  int64_t count = 0;
  CudnnCheck(LoadCudnn().BackendGetAttribute(raw_, attribute, type, room, &count, values), "get attribute");
  return count;
}

// ---- Plan ----------------------------------------------------------------------------------------------------------

void Plan::Execute(Handle handle, const std::vector<Binding>& bindings, void* workspace) const {
  std::vector<int64_t> ids;
  std::vector<void*> addresses;
  for (const Binding& binding : bindings) {
    ids.push_back(binding.id);
    addresses.push_back(binding.address);
  }
  Descriptor pack(kDescVariantPack);
  pack.Set(kPackPointers, kTypeVoidPtr, static_cast<int64_t>(addresses.size()), addresses.data())
      .Set(kPackUniqueIds, ids)
      .Set(kPackWorkspace, kTypeVoidPtr, 1, &workspace)
      .Finalize("variant pack");
  CudnnCheck(LoadCudnn().BackendExecute(handle, plan_.front().raw(), pack.raw()), "execute");
}

// ---- Graph ---------------------------------------------------------------------------------------------------------

RawDescriptor Graph::Keep(Descriptor descriptor) {
  parts_.push_back(std::move(descriptor));
  return parts_.back().raw();
}

void Graph::Operation(Descriptor descriptor) { operations_.push_back(Keep(std::move(descriptor))); }

Tensor Graph::Add(const Dims& dims, const Dims& strides, DataType type, int64_t id, bool is_virtual, bool by_value) {
  Descriptor tensor(kDescTensor);
  tensor.Set(kTensorDataType, type)
      .Set(kTensorDimensions, dims)
      .Set(kTensorStrides, strides)
      .Set(kTensorUniqueId, id)
      .Set(kTensorAlignment, int64_t{16});
  if (is_virtual) tensor.Set(kTensorIsVirtual, true);  // these two are left unset rather than set to false
  if (by_value) tensor.Set(kTensorIsByValue, true);
  tensor.Finalize("tensor");
  return Keep(std::move(tensor));
}

Tensor Graph::Memory(int64_t id, const Dims& dims, const Dims& strides, DataType type) {
  return Add(dims, strides, type, id, false, false);
}

Tensor Graph::Virtual(const Dims& dims, const Dims& strides, DataType type) {
  return Add(dims, strides, type, next_virtual_++, true, false);
}

Tensor Graph::HostScalar(int64_t id) { return Add({1, 1, 1, 1}, {1, 1, 1, 1}, kFloat, id, false, true); }

void Graph::Matmul(Tensor a, Tensor b, Tensor c) {
  Descriptor matmul(kDescMatmul);
  matmul.Set(kMatmulCompType, kFloat).Finalize("matmul");
  Descriptor operation(kDescOpMatmul);
  operation.Set(kOpMatmulA, a).Set(kOpMatmulB, b).Set(kOpMatmulC, c).Set(kOpMatmulDesc, matmul.raw());
  operation.Finalize("matmul operation");
  Keep(std::move(matmul));
  Operation(std::move(operation));
}

void Graph::Pointwise(cudnn::Pointwise mode, Tensor x, Tensor b, Tensor y, Tensor t, DataType precision, int64_t axis) {
  Descriptor pointwise(kDescPointwise);
  pointwise.Set(kPointwiseMode, kTypePointwiseMode, 1, &mode).Set(kPointwiseMathPrec, precision);
  if (axis >= 0) pointwise.Set(kPointwiseAxis, axis);
  pointwise.Finalize("pointwise");
  Descriptor operation(kDescOpPointwise);
  operation.Set(kOpPointwiseDesc, pointwise.raw()).Set(kOpPointwiseX, x).Set(kOpPointwiseY, y);
  if (b) operation.Set(kOpPointwiseB, b);
  if (t) operation.Set(kOpPointwiseT, t);
  operation.Set(kOpPointwiseAlpha1, 1.0f).Set(kOpPointwiseAlpha2, 1.0f).Finalize("pointwise operation");
  Keep(std::move(pointwise));
  Operation(std::move(operation));
}

void Graph::Reduce(Reduction op, Tensor x, Tensor y) {
  Descriptor reduction(kDescReduction);
  reduction.Set(kReductionOperator, kTypeReductionOperator, 1, &op).Set(kReductionCompType, kFloat);
  reduction.Finalize("reduction");
  Descriptor operation(kDescOpReduction);
  operation.Set(kOpReductionX, x).Set(kOpReductionY, y).Set(kOpReductionDesc, reduction.raw());
  operation.Finalize("reduction operation");
  Keep(std::move(reduction));
  Operation(std::move(operation));
}

void Graph::Reshape(Tensor x, Tensor y) {
  Descriptor operation(kDescOpReshape);
  operation.Set(kOpReshapeX, x).Set(kOpReshapeY, y).Finalize("reshape operation");
  Operation(std::move(operation));
}

Plan Graph::Build(Handle handle) {
  Descriptor graph(kDescGraph);
  graph.Set(kGraphOps, kTypeDescriptor, static_cast<int64_t>(operations_.size()), operations_.data())
      .Set(kGraphHandle, kTypeHandle, 1, &handle)
      .Finalize("operation graph");
  std::string refusals;
  for (HeurMode mode : {kHeurA, kHeurFallback}) {
    Descriptor heuristics(kDescEngineHeur);
    heuristics.Set(kEngineHeurGraph, graph.raw()).Set(kEngineHeurMode, kTypeHeurMode, 1, &mode);
    if (!heuristics.TryFinalize()) {
      refusals += "; heuristics: " + LastMessage();
      continue;
    }
    const int64_t count = heuristics.Get(kEngineHeurResults, kTypeDescriptor, 0, nullptr);
    std::vector<Descriptor> configs;
    std::vector<RawDescriptor> raw;
    for (int64_t i = 0; i < count; i++) raw.push_back(configs.emplace_back(kDescEngineConfig).raw());
    const int64_t filled = count > 0 ? heuristics.Get(kEngineHeurResults, kTypeDescriptor, count, raw.data()) : 0;
    for (int64_t i = 0; i < filled; i++) {
      Descriptor plan(kDescPlan);
      plan.Set(kPlanEngineConfig, raw[i]);
      if (!plan.TryFinalize()) {
        refusals += "; configuration " + std::to_string(i) + ": " + LastMessage();
        continue;
      }
      Plan result;
      plan.Get(kPlanWorkspaceSize, kTypeInt64, 1, &result.workspace_bytes_);
      result.plan_.push_back(std::move(plan));
      result.parts_ = std::move(parts_);
      for (Descriptor& config : configs) result.parts_.push_back(std::move(config));
      result.parts_.push_back(std::move(graph));
      return result;
    }
  }
  throw CudnnError("cuDNN " + LoadCudnn().version + " has no engine for this graph" + refusals);
}

}  // namespace mbcuda
