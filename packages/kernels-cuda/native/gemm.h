// Matrix products through cuBLASLt, row-major: C [m, n] = epilogue(alpha op(A) op(B) + beta C). Sums are f32 (tf32 products are
// off for f32 inputs unless asked for). Algorithms are chosen once per shape; see gemm.cc.
#pragma once
#include "kernel.h"

namespace ds {

enum class Epilogue {
  kNone,
  kBias,           // + bias[n]
  kGeluAuxBias,    // aux = A B + bias; C = gelu_tanh(aux)
};

struct Gemm {
  // op(A) is [m, k]: A is stored [m, k], or [k, m] when transpose_a. op(B) is [k, n]: B is stored [k, n], or [n, k] when transpose_b.
  int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  int64_t lda, ldb, ldc;  // elements between rows as stored
  bool transpose_a = false, transpose_b = false;
  DType in_dtype = BF16;  // of A and B
  DType out_dtype = BF16; // of C: in_dtype or F32
  float alpha = 1, beta = 0;
  Epilogue epilogue = Epilogue::kNone;
  const void* bias = nullptr;     // in_dtype
  void* aux = nullptr;            // in_dtype, [m, n] with row stride ld_aux
  int64_t ld_aux = 0;
  // Batched where batch > 1: elements between the matrices of a batch.
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
};

// nullptr on success, else a text as a kernel returns it (a missing libcublasLt names where it was looked for).
const char* gemm(const Gemm& g, cudaStream_t stream);

}  // namespace ds
