// The register tile of every matrix product here: C[m x n] = base + A[m x kc] B[kc x NR], m <= MR, n <= NR = 2 vectors.
// One source for all levels; what differs is MR. An element of C is one chain of fmadd over k, so its bits depend on
// nothing but k: not on the tile's height, nor on how C was split among threads.
// Included by ops/matmul.cc alone: 2 x MR kernels are code enough once a level. Others call multiply_block (gemm.h).
#pragma once
#include "gemm.h"

namespace ds {
namespace DS_ISA_NS {

struct Tile {
  int64_t kc;
  const float* a;  // A(i, k) = a[i * a_row + k], or a[k * a_row + i] when A is read along columns
  int64_t a_row;
  const float* b;  // B(k, j) = b[k * b_row + j]
  int64_t b_row;
  float* c;
  int64_t c_row;
  int n;
  Base base;
  const float* bias;  // [n], for Base::kBias
  const float* ahead;  // a part of the sliver after this one, to be in L2 by then
};

// The loops are unrolled so that `acc` stays in registers.
template <int M, bool kFull> DS_INLINE void finish(const Tile& t, vf (&acc)[M][NV]) {
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) {
    float* c = t.c + v * VL;
    const int64_t lanes = t.n - v * VL < VL ? t.n - v * VL : VL;
    if (!kFull && lanes <= 0) return;
    if (t.base == Base::kC) {
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) acc[i][v] += kFull ? load(c + i * t.c_row) : load(c + i * t.c_row, lanes);
    } else if (t.base == Base::kBias) {
      vf bias = kFull ? load(t.bias + v * VL) : load(t.bias + v * VL, lanes);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) acc[i][v] += bias;
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) kFull ? store(c + i * t.c_row, acc[i][v]) : store(c + i * t.c_row, acc[i][v], lanes);
  }
}

template <int M, bool kColumns> static void tile(const Tile& t) {
  vf acc[M][NV];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) {
    for (int v = 0; v < NV; v++) acc[i][v] = vf{};
    __builtin_prefetch(t.c + i * t.c_row, 1);  // both lines or more of C's rows are wanted after the loop
    __builtin_prefetch(t.c + i * t.c_row + NR - 1, 1);
  }
  const float *a = t.a, *b = t.b;
  const int64_t a_row = t.a_row, b_row = t.b_row;
  const float* ahead = t.ahead;
#pragma GCC unroll 4
  for (int64_t k = 0; k < t.kc; k++) {
    if (k % 4 == 0) __builtin_prefetch(ahead + k * 4, 0, 2);
    vf bv[NV];
    for (int v = 0; v < NV; v++) bv[v] = load(b + v * VL);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      vf x = splat(kColumns ? a[i] : a[i * a_row]);
      for (int v = 0; v < NV; v++) acc[i][v] = fmadd(x, bv[v], acc[i][v]);
    }
    a += kColumns ? a_row : 1;
    b += b_row;
  }
  if (t.n == NR)
    finish<M, true>(t, acc);
  else
    finish<M, false>(t, acc);
}

// Calls tile<m> for a run-time height, by halving the range.
template <bool kColumns, int kLow = 1, int kHigh = MR> static void tile_of_height(int m, const Tile& t) {
  if constexpr (kLow == kHigh) {
    tile<kLow, kColumns>(t);
  } else {
    constexpr int kMiddle = (kLow + kHigh) / 2;
    if (m <= kMiddle)
      tile_of_height<kColumns, kLow, kMiddle>(m, t);
    else
      tile_of_height<kColumns, kMiddle + 1, kHigh>(m, t);
  }
}

}  // namespace DS_ISA_NS
}  // namespace ds
