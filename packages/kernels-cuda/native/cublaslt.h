// What is used of cuBLASLt, declared here and opened at run time: the addon builds without NVIDIA's headers and library.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace ds {
namespace lt {

using Status = int;
constexpr Status kSuccess = 0;

// Handles are pointers to opaque structs.
using Handle = void*;
using Operation = void*;
using Layout = void*;
using Preference = void*;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};

// cublasComputeType_t and cudaDataType.
enum Compute : int { kCompute32F = 68, kCompute32FTf32 = 77 };
enum Type : int { kType32F = 0, kType16F = 2, kType16BF = 14 };
enum Transpose : int32_t { kAsStored = 0, kTransposed = 1 };

enum OperationAttribute : int {
  kOperationTransposeA = 3,
  kOperationTransposeB = 4,
  kOperationEpilogue = 7,
  kOperationBiasPointer = 8,
  kOperationAuxPointer = 11,
  kOperationAuxLd = 12,
};
enum LayoutAttribute : int { kLayoutBatchCount = 5, kLayoutBatchStride = 6 };
enum PreferenceAttribute : int {
  kPreferenceWorkspace = 1,
  kPreferenceReductions = 3,
  kPreferenceAlignmentA = 5,
  kPreferenceAlignmentB = 6,
  kPreferenceAlignmentC = 7,
  kPreferenceAlignmentD = 8,
};
enum AlgorithmAttribute : int { kAlgorithmId = 0, kAlgorithmTile = 1, kAlgorithmSplitK = 2, kAlgorithmReduction = 3 };

// Split-K whose parts meet in f32 in the workspace, in a fixed order. The other schemes round the parts to the type of the output.
constexpr uint32_t kReductionF32 = 2, kReductionAny = 7;

constexpr uint32_t kEpilogueNone = 1;
constexpr uint32_t kEpilogueBias = 4;
constexpr uint32_t kEpilogueGeluAuxBias = 32 | 128 | 4;

struct Table {
  Handle handle;
  Status (*create)(Handle*);
  const char* (*status_string)(Status);
  size_t (*version)();
  Status (*matmul)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c,
                   Layout, void* d, Layout, const Algorithm*, void* workspace, size_t, cudaStream_t);
  Status (*operation_create)(Operation*, int compute, int scale_type);
  Status (*operation_destroy)(Operation);
  Status (*operation_set)(Operation, int attribute, const void*, size_t);
  Status (*layout_create)(Layout*, int type, uint64_t rows, uint64_t cols, int64_t ld);
  Status (*layout_destroy)(Layout);
  Status (*layout_set)(Layout, int attribute, const void*, size_t);
  Status (*preference_create)(Preference*);
  Status (*preference_destroy)(Preference);
  Status (*preference_set)(Preference, int attribute, const void*, size_t);
  Status (*heuristics)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, Heuristic*, int* found);
  Status (*algorithm_get)(const Algorithm*, int attribute, void*, size_t, size_t* written);
};

}  // namespace lt

// The library with a handle on the current device, opened by the first call; nullptr: cublaslt_unavailable() says why. For the
// dispatcher's thread.
const lt::Table* cublaslt();

// For reports: nullptr when usable, else why not ("libcublasLt.so.13 was not found ...").
const char* cublaslt_unavailable();

}  // namespace ds
