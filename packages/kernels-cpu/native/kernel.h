// The contract between a kernel and the rest of the addon. A kernel file includes only this header, simd.h
// and headers beside it; it knows nothing of Node, handles or streams.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ds {

// Codes shared with core/src/dtype.ts.
enum DType : int32_t { F32 = 0, F16 = 1, BF16 = 2, I32 = 3, I64 = 4, U8 = 5, BOOL = 6, I8 = 7 };

constexpr uint32_t dtype_bit(DType d) { return 1u << d; }
constexpr uint32_t kFloats = dtype_bit(F32) | dtype_bit(F16) | dtype_bit(BF16);
constexpr uint32_t kAnyDType = 0xffu;

constexpr int kMaxRank = 6;
constexpr int kMaxTensors = 264;  // two weights of 128 experts, and what goes with them
constexpr int kMaxAttrs = 24;

// A contiguous row-major tensor in host memory.
struct View {
  void* data;
  int32_t dtype;
  int32_t rank;
  int64_t dims[kMaxRank];
  int64_t numel;
  template <class T> T* as() const { return static_cast<T*>(data); }
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
};

// nullptr on success, else a text that lives until the next call on this thread (static or error_text()).
using Kernel = const char* (*)(const Call&);

// Formats into a thread-local buffer; the value to return from a failing kernel.
const char* error_text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// isa: 0 baseline, 1 AVX2+FMA+F16C, 2 AVX-512. The highest level that the machine has wins.
// dtypes: the float dtypes that inputs and outputs may have (integers are the op's own business).
void register_kernel(const char* name, int isa, uint32_t dtypes, Kernel kernel);

// ---- threads -------------------------------------------------------------------------------------------
int pool_threads();
// Runs body(context, begin, end, worker) over [0, n) cut into chunks of `grain` items; chunks are handed out
// dynamically, so results must not depend on which worker runs which chunk. worker < pool_threads().
void parallel_raw(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t, int), void* context);

template <class F> static inline void parallel(int64_t n, int64_t grain, const F& body) {
  parallel_raw(
      n, grain,
      [](void* f, int64_t begin, int64_t end, int worker) { (*static_cast<const F*>(f))(begin, end, worker); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// ---- workspace -----------------------------------------------------------------------------------------
// A grow-only, 64-byte aligned block per (worker, slot), kept between calls and counted as workspace.
// worker -1 is a block shared by all workers of one call (ask for it outside parallel()). nullptr: out of memory.
constexpr int kScratchSlots = 8;
void* scratch(int worker, int slot, size_t bytes);

}  // namespace ds

#ifndef DS_ISA_LEVEL
#define DS_ISA_LEVEL 0
#endif
#if DS_ISA_LEVEL == 2
#define DS_ISA_NS isa_avx512
#elif DS_ISA_LEVEL == 1
#define DS_ISA_NS isa_avx2
#else
#define DS_ISA_NS isa_baseline
#endif

// KERNEL(rms_norm, ds::kFloats) { ... return nullptr; }   `c` is the Call.
#define KERNEL(NAME, DTYPES)                                                                   \
  static const char* kernel_##NAME(const ::ds::Call& c);                                       \
  namespace {                                                                                  \
  struct Register_##NAME {                                                                     \
    Register_##NAME() { ::ds::register_kernel(#NAME, DS_ISA_LEVEL, DTYPES, kernel_##NAME); }   \
  } register_##NAME;                                                                           \
  }                                                                                            \
  static const char* kernel_##NAME(const ::ds::Call& c)
