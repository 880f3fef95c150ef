// cuDNN's backend ("graph") interface, as much as attention needs, declared by hand: the addon builds without NVIDIA's headers
// and opens libcudnn.so.9 when it is first asked for. The numbers are cuDNN 9's binary interface, the same in every 9.x.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace ds::cudnn {

using Status = int32_t;  // 0: success; 3xxx: not supported; see status_text()
constexpr Status kSuccess = 0;
constexpr bool not_supported(Status status) { return status / 1000 == 3; }

using Handle = struct HandleTag*;
using Descriptor = void*;

enum class Kind : int32_t {  // of a descriptor
  kPointwise = 0,
  kEngine = 2,
  kEngineConfig = 3,
  kHeuristics = 4,
  kPlan = 5,
  kPointwiseOp = 13,
  kOperationGraph = 15,
  kVariantPack = 16,
  kTensor = 17,
  kMatmul = 18,
  kMatmulOp = 19,
  kReduction = 21,
  kReductionOp = 22,
  kReshapeOp = 31,
};

enum class Type : int32_t {  // of an attribute's elements
  kHandle = 0,
  kDataType = 1,
  kBoolean = 2,
  kInt64 = 3,
  kPointer = 6,
  kHeuristicsMode = 8,
  kNumericalNote = 11,
  kPointwiseMode = 14,
  kDescriptor = 15,
  kReductionOperator = 18,
};

enum class Attribute : int32_t {
  kPointwiseMode = 0,
  kPointwiseComputeType = 1,
  kPointwiseAxis = 9,
  kHeuristicsMode = 200,
  kHeuristicsGraph = 201,
  kHeuristicsResults = 202,
  kEngineConfigEngine = 300,
  kPlanHandle = 400,
  kPlanEngineConfig = 401,
  kPlanWorkspaceBytes = 402,
  kPointwiseOpDescriptor = 750,
  kPointwiseOpX = 751,
  kPointwiseOpB = 752,
  kPointwiseOpY = 753,
  kPointwiseOpT = 758,
  kGraphHandle = 800,
  kGraphOperations = 801,
  kTensorAlignment = 900,
  kTensorDataType = 901,
  kTensorDims = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorVirtual = 907,
  kTensorByValue = 908,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kEngineIndex = 1301,
  kEngineNumericalNote = 1303,
  kMatmulComputeType = 1500,
  kMatmulOpA = 1520,
  kMatmulOpB = 1521,
  kMatmulOpC = 1522,
  kMatmulOpDescriptor = 1523,
  kReductionOperator = 1600,
  kReductionComputeType = 1601,
  kReductionOpX = 1610,
  kReductionOpY = 1611,
  kReductionOpDescriptor = 1612,
  kReshapeOpX = 2200,
  kReshapeOpY = 2201,
};

enum class DataType : int32_t { kFloat = 0, kHalf = 2, kInt32 = 4, kBFloat16 = 9, kBoolean = 11 };
enum class Pointwise : int32_t {
  kAdd = 0,
  kMul = 1,
  kDiv = 6,
  kSub = 9,
  kExp = 13,
  kLog = 15,
  kGreaterOrEqual = 303,
  kIndex = 501,
  kSelect = 601,
};
enum class Reduction : int32_t { kAdd = 0, kMax = 3 };
enum class Heuristics : int32_t { kFallback = 2, kA = 3 };
constexpr int32_t kNoteNondeterministic = 4;
constexpr int kMaxNotes = 16;

struct Api {
  size_t (*version)();
  Status (*create)(Handle*);
  Status (*set_stream)(Handle, cudaStream_t);
  const char* (*error_string)(Status);
  void (*last_error_string)(char*, size_t);
  Status (*create_descriptor)(Kind, Descriptor*);
  Status (*destroy_descriptor)(Descriptor);
  Status (*set_attribute)(Descriptor, Attribute, Type, int64_t count, const void* elements);
  Status (*get_attribute)(Descriptor, Attribute, Type, int64_t requested, int64_t* count, void* elements);
  Status (*finalize)(Descriptor);
  Status (*execute)(Handle, Descriptor plan, Descriptor variant_pack);
};

// nullptr where libcudnn is missing or unusable; unavailable() then says why. Opened once.
const Api* api();
const char* unavailable();
// The handle of the current device, bound to `stream`; nullptr with `reason` set where cuDNN does not take this device. One device
// per process, and the dispatcher's thread only.
Handle handle(cudaStream_t stream, std::string* reason);
// "CUDNN_STATUS_NOT_SUPPORTED_SHAPE: <what cuDNN's last message says>".
std::string status_text(Status status);

}  // namespace ds::cudnn
