// Copies of matrix pieces in the order that the register tile reads them, widened to f32 on the way.
//   A by rows    [rows][stride]        a copy with a row stride that does not map all rows to the same cache sets
//   A by columns [panel][kc][height]   when A is stored transposed: consecutive rows are already side by side
//   B            [kc][NR]              one sliver of NR columns, zeros beyond the last column
#pragma once
#include <utility>

#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

// Register tile: MR rows x NR columns of C.
#if DS_ISA_LEVEL == 2
constexpr int MR = 14;  // 28 accumulators + 2 of B in 32 registers; A comes as a broadcast memory operand
#elif DS_ISA_LEVEL == 1
constexpr int MR = 6;  // 12 accumulators + 2 of B + 2 broadcasts in 16 registers
#elif defined(__aarch64__)
constexpr int MR = 8;
#else
constexpr int MR = 4;
#endif
constexpr int NV = 2;
constexpr int NR = NV * VL;
constexpr int64_t KC = DS_ISA_LEVEL == 2 ? 768 : 256;  // depth of a block, whose panels of A all meet one sliver of B (16 to 96 KiB)
constexpr int64_t kPanels = DS_ISA_LEVEL == 2 ? 12 : 16;  // most panels of a block of A, MR x kPanels x KC floats in L2
// Floats between packed rows of A: an odd number of cache lines, so that the rows of a panel do not share sets.
DS_INLINE int64_t row_stride(int64_t kc) { return (((kc + 15) / 16) | 1) * 16; }

// Rows [0, m) go in ceil(m / MR) panels whose heights differ by at most one: a last panel of 2 rows would leave most of
// the registers idle (256 rows are 19 panels of 13 or 14, not 18 of 14 and one of 4).
DS_INLINE int64_t panel_count(int64_t m) { return (m + MR - 1) / MR; }
DS_INLINE int64_t panel_begin(int64_t m, int64_t panels, int64_t p) { return m * p / panels; }

// ---- transpose of VL x VL ------------------------------------------------------------------------------
template <int D, int... L> DS_INLINE void swap_lanes(vf& a, vf& b, std::integer_sequence<int, L...>) {
  vf low = __builtin_shufflevector(a, b, ((L & D) ? VL + L - D : L)...);
  b = __builtin_shufflevector(a, b, ((L & D) ? VL + L : L + D)...);
  a = low;
}
// Swaps the off-diagonal D x D blocks of every 2D x 2D block; D = 1, 2, .. VL/2 is a transpose.
template <int D> DS_INLINE void transpose_step(vf* r) {
  for (int i = 0; i < VL; i++)
    if (!(i & D)) swap_lanes<D>(r[i], r[i + D], std::make_integer_sequence<int, VL>{});
}
DS_INLINE void transpose(vf* r) {
  transpose_step<1>(r);
  transpose_step<2>(r);
  if constexpr (VL > 4) transpose_step<4>(r);
  if constexpr (VL > 8) transpose_step<8>(r);
}

// ---- A -------------------------------------------------------------------------------------------------
template <class T>
void pack_rows(const T* a, int64_t lda, int64_t rows, int64_t columns, float* to, int64_t stride) {
  for (int64_t i = 0; i < rows; i++, a += lda, to += stride) {
    int64_t k = 0;
    for (; k + VL <= columns; k += VL) store(to + k, load(a + k));
    if (k < columns) store(to + k, load(a + k, columns - k), columns - k);
  }
}

// a: [kc][m..] (row k holds A(0..m-1, k)), read row by row; `to` is written in as many streams as there are panels.
template <class T> void pack_columns(const T* a, int64_t lda, int64_t m, int64_t kc, float* to) {
  const int64_t panels = panel_count(m);
  int64_t begin[kPanels + 1];
  constexpr int64_t kAhead = 16;
  for (int64_t p = 0; p <= panels; p++) begin[p] = panel_begin(m, panels, p);
  for (int64_t k = 0; k < kc; k++, a += lda)
    for (int64_t p = 0; p < panels; p++) {
      const int64_t height = begin[p + 1] - begin[p];
      __builtin_prefetch(a + kAhead * lda + begin[p]);  // short runs far apart: no hardware prefetcher follows them
      float* row = to + begin[p] * kc + k * height;
      for (int64_t i = 0; i < height; i += VL) {
        const T* from = a + begin[p] + i;
        const int64_t lanes = height - i < VL ? height - i : VL;
        // A whole vector where the row has one, and where what it spills over are later k of this panel, still to come.
        if (lanes == VL || (begin[p] + i + VL <= m && k * height + i + VL <= kc * height))
          store(row + i, load(from));
        else
          store(row + i, load(from, lanes), lanes);
      }
    }
}

// ---- B -------------------------------------------------------------------------------------------------
// Columns [0, n) of a kc x n block into columns [at, at + n) of a sliver.
template <class T> void pack_sliver(const T* b, int64_t ldb, int64_t kc, int n, float* to, int at) {
  to += at;
  if (n == NR) {
    for (int64_t k = 0; k < kc; k++, b += ldb, to += NR)
      for (int v = 0; v < NV; v++) store(to + v * VL, load(b + v * VL));
    return;
  }
  for (int64_t k = 0; k < kc; k++, b += ldb, to += NR)
    for (int j = 0; j < n; j += VL) {
      int lanes = n - j < VL ? n - j : VL;
      store(to + j, load(b + j, lanes), lanes);
    }
}

// The same from B stored transposed: column j of the block is the row b[j * ldb ..].
template <class T> void pack_sliver_transposed(const T* b, int64_t ldb, int64_t kc, int n, float* to, int at) {
  for (int j = 0; j < n; j += VL, b += VL * ldb) {
    const int lanes = n - j < VL ? n - j : VL;
    float* column = to + at + j;
    for (int64_t k = 0; k < kc; k += VL) {
      const int64_t depth = kc - k < VL ? kc - k : VL;
      vf r[VL];
      if (lanes == VL && depth == VL) {
        for (int i = 0; i < VL; i++) r[i] = load(b + i * ldb + k);
        transpose(r);
        for (int i = 0; i < VL; i++) store(column + (k + i) * NR, r[i]);
      } else {
        for (int i = 0; i < VL; i++) r[i] = i < lanes ? load(b + i * ldb + k, depth) : vf{};
        transpose(r);
        for (int64_t i = 0; i < depth; i++) store(column + (k + i) * NR, r[i], lanes);
      }
    }
  }
}

DS_INLINE void clear_columns(float* sliver, int64_t kc, int from) {
  for (int64_t k = 0; k < kc; k++)
    for (int j = from; j < NR; j++) sliver[k * NR + j] = 0;
}

// The templates of the GEMM that are not inlined: compiled once a level, for each storage type, by the file that defines
// DS_GEMM_HOME (ops/matmul.cc), and only declared to the others.
#ifdef DS_GEMM_HOME
#define DS_SHARED template
#else
#define DS_SHARED extern template
#endif
#define DS_SHARE_PACKING(T)                                                                          \
  DS_SHARED void pack_rows<T>(const T*, int64_t, int64_t, int64_t, float*, int64_t);                 \
  DS_SHARED void pack_columns<T>(const T*, int64_t, int64_t, int64_t, float*);                       \
  DS_SHARED void pack_sliver<T>(const T*, int64_t, int64_t, int, float*, int);                       \
  DS_SHARED void pack_sliver_transposed<T>(const T*, int64_t, int64_t, int, float*, int);
DS_SHARE_PACKING(float)
DS_SHARE_PACKING(f16)
DS_SHARE_PACKING(bf16)

}  // namespace DS_ISA_NS
}  // namespace ds
