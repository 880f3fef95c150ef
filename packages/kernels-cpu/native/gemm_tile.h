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
};

template <int M, bool kColumns> static void tile(const Tile& t) {
  vf acc[M][NV];
  for (int i = 0; i < M; i++)
    for (int v = 0; v < NV; v++) acc[i][v] = vf{};
  const float *a = t.a, *b = t.b;
  const int64_t a_row = t.a_row, b_row = t.b_row;
#pragma GCC unroll 4
  for (int64_t k = 0; k < t.kc; k++) {
    vf bv[NV];
    for (int v = 0; v < NV; v++) bv[v] = load(b + v * VL);
    for (int i = 0; i < M; i++) {
      vf x = splat(kColumns ? a[i] : a[i * a_row]);
      for (int v = 0; v < NV; v++) acc[i][v] = fmadd(x, bv[v], acc[i][v]);
    }
    a += kColumns ? a_row : 1;
    b += b_row;
  }
  const int64_t c_row = t.c_row;
  float* c = t.c;
  if (t.n == NR) {
    for (int i = 0; i < M; i++, c += c_row)
      for (int v = 0; v < NV; v++) {
        vf x = acc[i][v];
        if (t.base == Base::kC) x += load(c + v * VL);
        if (t.base == Base::kBias) x += load(t.bias + v * VL);
        store(c + v * VL, x);
      }
    return;
  }
  for (int v = 0; v < NV; v++) {
    int lanes = t.n - v * VL;
    if (lanes <= 0) break;
    if (lanes > VL) lanes = VL;
    c = t.c + v * VL;
    for (int i = 0; i < M; i++, c += c_row) {
      vf x = acc[i][v];
      if (t.base == Base::kC) x += load(c, lanes);
      if (t.base == Base::kBias) x += load(t.bias + v * VL, lanes);
      store(c, x, lanes);
    }
  }
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
