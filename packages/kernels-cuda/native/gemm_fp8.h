// Products of 8-bit floats, both operands with the summed axis contiguous, the only way Hopper's tensor cores take them:
// C [m, n] = A [m, k] B [n, k]' * scale_a * scale_b + bias + beta C, sums in f32.
#pragma once
#include "kernel.h"

namespace ds {

struct Fp8Gemm {
  int64_t m, n, k;
  const void* a;          // codes [m, k]
  const void* b;          // codes [n, k]
  void* c;                // [m, n], out_dtype
  const float* scale_a;   // in device memory
  const float* scale_b;
  bool a_e5m2, b_e5m2;    // else e4m3; not both e5m2
  bool fast;              // sums may keep fewer bits on the way
  DType out_dtype;        // BF16 or F32
  float beta;             // 0 or 1
  const void* bias;       // bf16 [n], or nullptr
};

// nullptr on success, else a text as a kernel returns it.
const char* gemm_fp8(const Fp8Gemm& g, cudaStream_t stream);

// Any size and alignment, without tensor cores: the last resort.
void gemm_fp8_plain(const Fp8Gemm& g, cudaStream_t stream);
// Codes of finite values that depend on (seed, i) alone.
void fill_codes(void* to, int64_t count, uint32_t seed, cudaStream_t stream);

}  // namespace ds
