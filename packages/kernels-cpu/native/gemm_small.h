// Products with few rows (a token or a few of them), where reading B once from memory is the whole cost: no packing, and
// B is read in the order in which it lies. An element is a chain over k in a fixed order that depends on K and on how B is
// stored alone, so neither threads nor the other rows change its bits. (They are not the bits of the packed product.)
#pragma once
#include "gemm.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int kSmallRows = 8;

// ---- B stored [n][k]: dot products of rows -------------------------------------------------------------
// Adds k in [from, until) of M rows of x times J rows of B to their VL partial sums each, sums[j * M + m]; `from` and the
// depth are multiples of VL but for the end of K.
template <int M, int J, class T>
static void dot_block(const float* x, int64_t ldx, const T* b, int64_t ldb, int64_t from, int64_t until, vf* sums) {
  vf acc[J][M];
  for (int j = 0; j < J; j++)
    for (int m = 0; m < M; m++) acc[j][m] = from == 0 ? vf{} : sums[j * M + m];
  int64_t i = from;
  for (; i + VL <= until; i += VL) {
    vf bv[J];
    for (int j = 0; j < J; j++) {
      bv[j] = load(b + j * ldb + i);
      if (M > 1) __builtin_prefetch(b + (j + J) * ldb + i);  // parts of rows end before the hardware runs ahead
    }
    for (int m = 0; m < M; m++) {
      vf xv = load(x + m * ldx + i);
      for (int j = 0; j < J; j++) acc[j][m] = fmadd(xv, bv[j], acc[j][m]);
    }
  }
  if (i < until)
    for (int m = 0; m < M; m++) {
      vf xv = load(x + m * ldx + i, until - i);
      for (int j = 0; j < J; j++) acc[j][m] = fmadd(xv, load(b + j * ldb + i, until - i), acc[j][m]);
    }
  for (int j = 0; j < J; j++)
    for (int m = 0; m < M; m++) sums[j * M + m] = acc[j][m];
}

// J columns at a time: as many sums as the registers hold beside J of B (8 x 3 of 32 in AVX-512, 8 x 1 of 16 below).
template <int M> constexpr int dot_width() { return DS_ISA_LEVEL == 2 ? (M <= 4 ? 4 : 3) : (M == 1 ? 4 : M <= 4 ? 2 : 1); }

// y [M][n] = M rows of x times n rows of B. When x is more than half of L1, K goes in parts that are not, over a group of
// columns whose sums wait in between.
template <int M, class T>
static void dot_columns(const float* x, int64_t ldx, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  constexpr int J = dot_width<M>(), kGroup = 8 * J;
  constexpr int64_t kDepth = 6144 / M / VL * VL;
  const int64_t depth = k <= kDepth ? k : kDepth;
  vf sums[kGroup * M];
  for (int64_t j0 = 0; j0 < n; j0 += kGroup, b += kGroup * ldb, y += kGroup) {
    const int64_t group = smaller(kGroup, n - j0);
    for (int64_t from = 0; from < k || from == 0; from += depth + (depth == 0)) {
      const int64_t until = smaller(k, from + depth);
      int64_t j = 0;
      for (; j + J <= group; j += J) dot_block<M, J>(x, ldx, b + j * ldb, ldb, from, until, sums + j * M);
      for (; j < group; j++) dot_block<M, 1>(x, ldx, b + j * ldb, ldb, from, until, sums + j * M);
    }
    for (int64_t j = 0; j < group; j++)
      for (int m = 0; m < M; m++) y[m * ldy + j] = hsum(sums[j * M + m]);
  }
}

template <int M = 1, class T>
static void dot_columns_of(const float* x, int64_t ldx, int64_t m, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  if constexpr (M < kSmallRows) {
    if (m > M) return dot_columns_of<M + 1>(x, ldx, m, b, ldb, k, n, y, ldy);
  }
  dot_columns<M>(x, ldx, b, ldb, k, n, y, ldy);
}

template <class T>
void small_by_dots(const float* x, int64_t ldx, int64_t m, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  dot_columns_of(x, ldx, m, b, ldb, k, n, y, ldy);
}

// ---- B stored [k][n]: rows of B scaled and added -------------------------------------------------------
template <class T>
void small_by_rows(const float* x, int64_t ldx, int64_t m, const T* b, int64_t ldb, int64_t k, int64_t n, float* y, int64_t ldy) {
  for (int64_t r = 0; r < m; r++)
    for (int64_t j = 0; j < n; j++) y[r * ldy + j] = 0;
  for (int64_t i = 0; i < k; i += 4) {
    const int depth = (int)smaller(4, k - i);
    const T* rows = b + i * ldb;
    for (int64_t j = 0; j < n; j += VL) {
      const int64_t lanes = smaller(VL, n - j);
      vf bv[4];
      for (int d = 0; d < 4; d++) {
        __builtin_prefetch(rows + (8 + d) * ldb + j);  // a row's part is too short for the hardware to run ahead in
        bv[d] = d >= depth ? vf{} : lanes == VL ? load(rows + d * ldb + j) : load(rows + d * ldb + j, lanes);
      }
      for (int64_t r = 0; r < m; r++) {
        vf sum = load(y + r * ldy + j);
        for (int d = 0; d < depth; d++) sum = fmadd(splat(x[r * ldx + i + d]), bv[d], sum);
        store(y + r * ldy + j, sum);
      }
    }
  }
}

#define DS_SHARE_SMALL(T)                                                                                             \
  DS_SHARED void small_by_dots<T>(const float*, int64_t, int64_t, const T*, int64_t, int64_t, int64_t, float*, int64_t); \
  DS_SHARED void small_by_rows<T>(const float*, int64_t, int64_t, const T*, int64_t, int64_t, int64_t, float*, int64_t);
DS_SHARE_SMALL(float)
DS_SHARE_SMALL(f16)
DS_SHARE_SMALL(bf16)

// m <= kSmallRows, pieces side by side. Call it outside parallel(). false: out of memory.
template <class TA, class TB, class TC> static bool gemm_small(const Gemm<TA, TB, TC>& g) {
  constexpr int64_t kWidest = 1024;
  const int64_t ldx = (((g.k + 15) / 16) | 1) * 16;  // an odd number of cache lines: rows do not share their sets
  float* x = (float*)scratch(-1, 0, (size_t)(g.m * ldx) * sizeof(float));
  if (!x) return false;
  for (int64_t i = 0; i < g.m; i++)
    for (int64_t k = 0; k < g.k; k++)
      x[i * ldx + k] = load_scalar(g.a_transposed ? g.a + k * g.lda + i : g.a + i * g.lda + k);
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
        small_by_dots(x, ldx, g.m, b, g.b.ld[piece], g.k, n, y, kWidest + VL);
      else
        small_by_rows(x, ldx, g.m, b, g.b.ld[piece], g.k, n, y, kWidest + VL);
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
