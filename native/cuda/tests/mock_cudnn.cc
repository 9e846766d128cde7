// A stand-in for libcudnn.so.9 that computes nothing and prints every operation graph it is given, one operation a line
// with its attributes and tensors, and every execution's bindings. Engines of the real one match on exactly that list.
#include <stdio.h>
#include <string.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/libs/abi_cudnn.h"

using namespace mb::cuda::cudnn;

namespace {

struct Node {
  DescriptorType type;
  std::map<int, std::vector<int64_t>> numbers;  // attribute -> values, pointers and enums among them
  std::map<int, float> floats;
  bool finalized = false;
};

int64_t number(const Node* node, int attribute, int64_t fallback = -1) {
  auto found = node->numbers.find(attribute);
  return found == node->numbers.end() || found->second.empty() ? fallback : found->second[0];
}

const Node* ref(const Node* node, int attribute) { return reinterpret_cast<const Node*>(number(node, attribute, 0)); }

std::string list(const Node* node, int attribute) {
  std::string out;
  auto found = node->numbers.find(attribute);
  if (found == node->numbers.end()) return "-";
  for (int64_t value : found->second) out += (out.empty() ? "" : ",") + std::to_string(value);
  return out;
}

// Virtual tensors are named in the order in which they appear, so that their ids do not matter.
std::string tensor_text(const Node* tensor, std::map<const Node*, int>* names) {
  if (!tensor) return "none";
  const bool is_virtual = number(tensor, kTensorIsVirtual, 0) != 0;
  std::string name = std::to_string(number(tensor, kTensorUniqueId));
  if (is_virtual) name = "v" + std::to_string(names->emplace(tensor, static_cast<int>(names->size())).first->second);
  return name + ":" + std::to_string(number(tensor, kTensorDataType)) + "[" + list(tensor, kTensorDimensions) + "]{" +
         list(tensor, kTensorStrides) + "}" + (number(tensor, kTensorIsByValue, 0) ? "host" : "") + "/" +
         std::to_string(number(tensor, kTensorAlignment));
}

std::string operation_text(const Node* op, std::map<const Node*, int>* names) {
  auto tensor = [&](const char* label, int attribute) {
    return ref(op, attribute) ? std::string(" ") + label + "=" + tensor_text(ref(op, attribute), names) : std::string();
  };
  if (op->type == kDescOpMatmul) {
    return "matmul comp=" + std::to_string(number(ref(op, kOpMatmulDesc), kMatmulCompType)) + tensor("a", kOpMatmulA) +
           tensor("b", kOpMatmulB) + tensor("c", kOpMatmulC);
  }
  if (op->type == kDescOpReduction) {
    const Node* reduction = ref(op, kOpReductionDesc);
    return "reduce" + std::to_string(number(reduction, kReductionOperator)) +
           " comp=" + std::to_string(number(reduction, kReductionCompType)) + tensor("x", kOpReductionX) +
           tensor("y", kOpReductionY);
  }
  if (op->type == kDescOpReshape) return "reshape" + tensor("x", kOpReshapeX) + tensor("y", kOpReshapeY);
  const Node* pointwise = ref(op, kOpPointwiseDesc);
  return "pointwise" + std::to_string(number(pointwise, kPointwiseMode)) +
         " prec=" + std::to_string(number(pointwise, kPointwiseMathPrec)) +
         " axis=" + std::to_string(number(pointwise, kPointwiseAxis)) +
         " alpha=" + std::to_string(op->floats.at(kOpPointwiseAlpha1)) + "," +
         std::to_string(op->floats.at(kOpPointwiseAlpha2)) + tensor("x", kOpPointwiseX) + tensor("b", kOpPointwiseB) +
         tensor("t", kOpPointwiseT) + tensor("y", kOpPointwiseY);
}

}  // namespace

extern "C" {
#define EXPORT __attribute__((visibility("default")))
EXPORT size_t cudnnGetVersion() { return 91900; }
EXPORT const char* cudnnGetErrorString(Status) { return "MOCK_ERROR"; }
EXPORT void cudnnGetLastErrorString(char* out, size_t room) { snprintf(out, room, "refused by the mock"); }
EXPORT Status cudnnCreate(Handle* out) {
  *out = reinterpret_cast<Handle>(1);
  return kSuccess;
}
EXPORT Status cudnnDestroy(Handle) { return kSuccess; }
EXPORT Status cudnnSetStream(Handle, cudaStream_t) { return kSuccess; }

EXPORT Status cudnnBackendCreateDescriptor(DescriptorType type, RawDescriptor* out) {
  *out = new Node{type, {}, {}, false};
  return kSuccess;
}

EXPORT Status cudnnBackendDestroyDescriptor(RawDescriptor raw) {
  delete static_cast<Node*>(raw);
  return kSuccess;
}

EXPORT Status cudnnBackendSetAttribute(RawDescriptor raw, Attribute attribute, AttributeType type, int64_t count,
                                       const void* values) {
  Node* node = static_cast<Node*>(raw);
  if (node->finalized) return static_cast<Status>(1);
  if (type == kTypeFloat) {
    node->floats[attribute] = *static_cast<const float*>(values);
    return kSuccess;
  }
  std::vector<int64_t>& out = node->numbers[attribute];
  for (int64_t i = 0; i < count; i++) {
    int64_t value = 0;
    const size_t size = type == kTypeBoolean ? 1
                        : type == kTypeInt64 || type == kTypeVoidPtr || type == kTypeDescriptor || type == kTypeHandle
                            ? 8
                            : 4;
    memcpy(&value, static_cast<const char*>(values) + i * size, size);
    out.push_back(value);
  }
  return kSuccess;
}

EXPORT Status cudnnBackendGetAttribute(RawDescriptor raw, Attribute attribute, AttributeType, int64_t room,
                                       int64_t* count, void* values) {
  *count = 1;
  if (attribute == kEngineHeurResults) return kSuccess;  // one configuration
  if (attribute == kPlanWorkspaceSize && room == 1) {
    *static_cast<int64_t*>(values) = 1000;
    return kSuccess;
  }
  return static_cast<Node*>(raw)->finalized ? static_cast<Status>(1) : static_cast<Status>(2);
}

EXPORT Status cudnnBackendFinalize(RawDescriptor raw) {
  Node* node = static_cast<Node*>(raw);
  node->finalized = true;
  if (node->type != kDescGraph) return kSuccess;
  std::map<const Node*, int> names;
  printf("graph\n");
  for (int64_t op : node->numbers.at(kGraphOps)) {
    printf("%s\n", operation_text(reinterpret_cast<const Node*>(op), &names).c_str());
  }
  return kSuccess;
}

EXPORT Status cudnnBackendExecute(Handle, RawDescriptor, RawDescriptor pack) {
  const Node* node = static_cast<const Node*>(pack);
  const std::vector<int64_t>& ids = node->numbers.at(kPackUniqueIds);
  const std::vector<int64_t>& pointers = node->numbers.at(kPackPointers);
  std::map<int64_t, int64_t> sorted;
  for (size_t i = 0; i < ids.size(); i++) sorted[ids[i]] = pointers[i];
  printf("execute workspace=%lld", static_cast<long long>(number(node, kPackWorkspace)));
  for (const auto& [id, pointer] : sorted) {
    // Host scalars are printed by value, device addresses as they are: the test program makes up small ones.
    if (pointer > 1 << 30) {
      printf(" %lld=%g", static_cast<long long>(id), *reinterpret_cast<const float*>(pointer));
    } else {
      printf(" %lld=%lld", static_cast<long long>(id), static_cast<long long>(pointer));
    }
  }
  printf("\n");
  return kSuccess;
}
}
