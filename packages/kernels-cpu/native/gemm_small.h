// Products with few rows (a token or a few of them), where reading B once from memory is the whole cost: no packing, and
// B is read in the order in which it lies. An element is a chain over k in a fixed order that depends on K and on how B is
// stored alone, so neither threads nor the other rows change its bits. (They are not the bits of the packed product.)
#pragma once
#include "gemm.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int kSmallRows = 8;

// ---- B stored [n][k]: dot products of rows -------------------------------------------------------------
// M rows of x times J rows of B; VL partial sums per element, added as a tree.
template <int M, int J, class T>
static void dot_block(const float* x, int64_t ldx, const T* b, int64_t ldb, int64_t k, float* y, int64_t ldy) {
  vf acc[M][J];
  for (int m = 0; m < M; m++)
    for (int j = 0; j < J; j++) acc[m][j] = vf{};
  int64_t i = 0;
  for (; i + VL <= k; i += VL) {
    vf bv[J];
    for (int j = 0; j < J; j++) bv[j] = load(b + j * ldb + i);
    for (int m = 0; m < M; m++) {
      vf xv = load(x + m * ldx + i);
      for (int j = 0; j < J; j++) acc[m][j] = fmadd(xv, bv[j], acc[m][j]);
    }
  }
  if (i < k)
    for (int m = 0; m < M; m++) {
      vf xv = load(x + m * ldx + i, k - i);
      for (int j = 0; j < J; j++) acc[m][j] = fmadd(xv, load(b + j * ldb + i, k - i), acc[m][j]);
    }
  for (int m = 0; m < M; m++)
    for (int j = 0; j < J; j++) y[m * ldy + j] = hsum(acc[m][j]);
}

template <int J, class T>
static void dot_rows(const float* x, int64_t m, const T* b, int64_t ldb, int64_t k, float* y, int64_t ldy) {
  for (; m >= 4; m -= 4, x += 4 * k, y += 4 * ldy) dot_block<4, J>(x, k, b, ldb, k, y, ldy);
  if (m == 3) dot_block<3, J>(x, k, b, ldb, k, y, ldy);
  if (m == 2) dot_block<2, J>(x, k, b, ldb, k, y, ldy);
  if (m == 1) dot_block<1, J>(x, k, b, ldb, k, y, ldy);
}

template <class T>
static void dot_columns(const float* x, int64_t m, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) dot_rows<4>(x, m, b + j * ldb, ldb, k, y + j, ldy);
  for (; j < n; j++) dot_rows<1>(x, m, b + j * ldb, ldb, k, y + j, ldy);
}

// ---- B stored [k][n]: rows of B scaled and added -------------------------------------------------------
template <class T>
static void axpy_columns(const float* x, int64_t m, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  for (int64_t r = 0; r < m; r++)
    for (int64_t j = 0; j < n; j++) y[r * ldy + j] = 0;
  for (int64_t i = 0; i < k; i += 4) {
    const int depth = (int)smaller(4, k - i);
    const T* rows = b + i * ldb;
    for (int64_t j = 0; j < n; j += VL) {
      const int64_t lanes = smaller(VL, n - j);
      vf bv[4];
      for (int d = 0; d < 4; d++)
        bv[d] = d >= depth ? vf{} : lanes == VL ? load(rows + d * ldb + j) : load(rows + d * ldb + j, lanes);
      for (int64_t r = 0; r < m; r++) {
        vf sum = load(y + r * ldy + j);
        for (int d = 0; d < depth; d++) sum = fmadd(splat(x[r * k + i + d]), bv[d], sum);
        store(y + r * ldy + j, sum);
      }
    }
  }
}

// m <= kSmallRows, pieces side by side. Call it outside parallel(). false: out of memory.
template <class TA, class TB, class TC> static bool gemm_small(const Gemm<TA, TB, TC>& g) {
  constexpr int64_t kWidest = 512;
  float* x = (float*)scratch(-1, 0, (size_t)(g.m * g.k + VL) * sizeof(float));
  if (!x) return false;
  for (int64_t i = 0; i < g.m; i++)
    for (int64_t k = 0; k < g.k; k++)
      x[i * g.k + k] = load_scalar(g.a_transposed ? g.a + k * g.lda + i : g.a + i * g.lda + k);
  const int64_t share = round_up((g.n + 4 * pool_threads() - 1) / (4 * pool_threads()), 4 * VL);
  bool ok = true;
  parallel(g.n, smaller(kWidest, share), [&](int64_t begin, int64_t end, int worker) {
    float* y = (float*)scratch(worker, 0, (size_t)(kSmallRows * (kWidest + VL)) * sizeof(float));
    if (!y) {
      __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
      return;
    }
    // A chunk may be longer than the block of sums when everything runs on one thread.
    for (int64_t at = begin; at < end;) {
      int64_t piece = 0, first = 0;
      while (at >= first + g.b.extent[piece]) first += g.b.extent[piece++];
      const int64_t n = smaller(smaller(end, first + g.b.extent[piece]) - at, kWidest), j = at - first;
      const TB* b = g.b.data[piece] + (g.b.transposed ? j * g.b.ld[piece] : j);
      if (g.b.transposed)
        dot_columns(x, g.m, b, g.b.ld[piece], g.k, n, y, kWidest + VL);
      else
        axpy_columns(x, g.m, b, g.b.ld[piece], g.k, n, y, kWidest + VL);
      for (int64_t i = 0; i < g.m; i++) {
        float* row = y + i * (kWidest + VL);
        if (g.bias)
          for (int64_t c = 0; c < n; c++) row[c] += g.bias[at + c];
        round_rows(row, 0, 1, n, g.c + i * g.ldc + at, 0, g.accumulate);
      }
      at += n;
    }
  });
  return ok;
}

// The product by the fitting of the two ways; the choice is by shape alone.
template <class TA, class TB, class TC> static bool multiply(const Gemm<TA, TB, TC>& g) {
  if (g.m <= kSmallRows && !g.b.along_k) return gemm_small(g);
  return gemm(g);
}

}  // namespace DS_ISA_NS
}  // namespace ds
