// The contract between a kernel and the rest of the addon. A kernel file includes only this header and headers beside it; it
// knows nothing of Node, handles or the dispatcher.
//
// A kernel's function runs on the dispatcher's thread, in the order in which JavaScript launched. It queues device work on
// `c.stream` and returns without waiting for it.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace ds {

// Codes shared with core/src/dtype.ts.
enum DType : int32_t { F32 = 0, F16 = 1, BF16 = 2, I32 = 3, I64 = 4, U8 = 5, BOOL = 6, I8 = 7 };

constexpr uint32_t dtype_bit(DType d) { return 1u << d; }
constexpr uint32_t kFloats = dtype_bit(F32) | dtype_bit(F16) | dtype_bit(BF16);
constexpr int64_t kElementBytes[] = {4, 2, 2, 4, 8, 1, 1, 1};  // by dtype code
constexpr int kDTypes = sizeof kElementBytes / sizeof *kElementBytes;

constexpr int kMaxRank = 6;
constexpr int kMaxTensors = 264;  // two weights of 128 experts, and what goes with them
constexpr int kMaxAttrs = 24;

// A contiguous row-major tensor in device memory.
struct View {
  void* data;
  int32_t dtype;
  int32_t rank;
  int64_t dims[kMaxRank];
  int64_t numel;
  template <class T> T* as() const { return static_cast<T*>(data); }
  int64_t bytes() const { return numel * kElementBytes[dtype]; }
  // Last dimension, and how many rows of it there are ([..., C] -> C and numel / C).
  int64_t cols() const { return rank == 0 ? 1 : dims[rank - 1]; }
  int64_t rows() const { return cols() == 0 ? 0 : numel / cols(); }
};

struct Call {
  const View* in;
  int n_in;
  const View* out;
  int n_out;
  const double* attrs;
  int n_attrs;
  cudaStream_t stream;
};

// nullptr on success, else a text that lives until the next call on this thread (static or error_text()). The dispatcher asks
// cudaGetLastError() after each kernel itself: a launch that failed needs no check of its own.
using Kernel = const char* (*)(const Call&);

// Formats into a thread-local buffer; the value to return from a failing kernel.
const char* error_text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// "allocation of workspace failed: ..." and the like from a CUDA error code.
const char* cuda_error_text(const char* what, cudaError_t error);

// dtypes: the float dtypes that inputs and outputs may have (integers are the op's own business).
void register_kernel(const char* name, uint32_t dtypes, Kernel kernel);

// ---- the device ----------------------------------------------------------------------------------------
struct DeviceProperties {
  int index;             // as CUDA counts
  int major, minor;      // compute capability
  int multiprocessors;
  size_t shared_memory;  // bytes a block may have at most, opted in
  size_t l2_bytes;
  size_t memory_bytes;
  char name[256];
};
const DeviceProperties& device_properties();

// ---- workspace -----------------------------------------------------------------------------------------
// Device memory, 256-byte aligned, one grow-only block per slot, kept between calls and counted as workspace. A kernel may use
// it until its own function returns and asks for it anew in each call (work is in stream order, so all kernels share it).
// nullptr: out of memory; return kNoWorkspace then.
enum ScratchSlot { kScratchA, kScratchB, kScratchC, kScratchD, kScratchGemm, kScratchAttention, kScratchSlots };
void* scratch(ScratchSlot slot, size_t bytes);
extern const char* const kNoWorkspace;

// ---- faults found on the device --------------------------------------------------------------------------
// A kernel that finds bad data (a token outside the table) calls device_fault() of fault.cuh with one of these codes; the next
// read reports it. Add a text for a new code in fault.cc; %lld stand for a, b and c.
enum FaultCode : int32_t { kNoFault = 0, kFaultEmbeddingId = 1, kFaultLabel = 2, kFaultDocument = 3, kFaultPosition = 4 };
struct Fault {
  int32_t code;
  long long a, b, c;
};
// Mapped host memory that kernels write to; pass it to a kernel as an argument.
Fault* fault_slot();

}  // namespace ds

// KERNEL(rms_norm, ds::kFloats) { ... return nullptr; }   `c` is the Call.
#define KERNEL(NAME, DTYPES)                                                         \
  static const char* kernel_##NAME(const ::ds::Call& c);                             \
  namespace {                                                                        \
  struct Register_##NAME {                                                           \
    Register_##NAME() { ::ds::register_kernel(#NAME, DTYPES, kernel_##NAME); }       \
  } register_##NAME;                                                                 \
  }                                                                                  \
  static const char* kernel_##NAME(const ::ds::Call& c)
