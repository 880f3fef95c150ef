// C = base + op(A) op(B) for row-major matrices in f32, bf16 or f16, f32 accumulation, one rounding on the way out.
//
// B is packed first (all threads), then C is cut into row blocks x column groups that threads take; a block packs its
// own rows of A and runs over all of K in steps of at most KC. The sum of one step is a chain of fmadd, the sums of the steps
// are added in order: so the bits of an element depend on its row of A, its column of B and K alone.
#pragma once
#include "gemm_pack.h"

namespace ds {
namespace DS_ISA_NS {

// What a product is added to.
enum class Base { kZero, kBias, kC };
// How A(i, k) lies: a[i * a_row + k]; a[k * a_row + i]; or as pack_columns leaves it.
enum class Lie { kRows, kColumns, kColumnPanels };

// C [m x n] = base + A [m x kc] B, by one thread. B comes as slivers of NR columns, b_step floats apart, each with rows
// b_row floats apart (readable up to NR columns, also in the last sliver).
struct Block {
  int64_t m, n, kc;
  const float* a;
  int64_t a_row;
  Lie lie;
  const float* b;
  int64_t b_row, b_step;
  float* c;
  int64_t c_row;
  Base base;
  const float* bias;  // [n], for Base::kBias
};
void multiply_block(const Block& block);  // in ops/matmul.cc, one a level

constexpr int kMaxPieces = 8;
constexpr int64_t MC = MR * kPanels;
constexpr int64_t kPackedB = 4 << 20;  // floats of packed B at a time (16 MiB), or 256 columns if those are more

// op(B) [K, N] may be several matrices side by side (the weights of one fused projection, concatenated along N) or
// below one another (the same weights in the input gradient, concatenated along K).
template <class T> struct Pieces {
  const T* data[kMaxPieces];
  int64_t extent[kMaxPieces];  // columns (or rows, when stacked along K) of op(B) that a piece holds
  int count;
  bool along_k;
  bool transposed;  // stored [n][k]
  int64_t ld[kMaxPieces];  // elements between stored rows
};

template <class TA, class TB, class TC> struct Gemm {
  int64_t m, n, k;
  const TA* a;
  int64_t lda;
  bool a_transposed;  // stored [k][m]
  Pieces<TB> b;
  TC* c;
  int64_t ldc;
  bool accumulate;    // C += ...
  const float* bias;  // [n] added to every row, or nullptr
};

template <class T> static Pieces<T> whole(const T* data, int64_t ld, bool transposed, int64_t n) {
  Pieces<T> p = {};
  p.data[0] = data, p.extent[0] = n, p.count = 1, p.ld[0] = ld, p.transposed = transposed;
  return p;
}

DS_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
DS_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DS_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows [k0, k0 + kc) and columns [j0, j0 + n), n <= NR, of op(B) as one sliver.
template <class T> static void pack_b(const Pieces<T>& b, int64_t k0, int64_t kc, int64_t j0, int n, float* to) {
  if (n < NR) clear_columns(to, kc, n);
  const int64_t want_begin = b.along_k ? k0 : j0, want_end = want_begin + (b.along_k ? kc : n);
  int64_t begin = 0;
  for (int i = 0; i < b.count; begin += b.extent[i++]) {
    const int64_t from = larger(want_begin, begin), until = smaller(want_end, begin + b.extent[i]);
    if (from >= until) continue;
    const int64_t k = b.along_k ? from - begin : k0, j = b.along_k ? j0 : from - begin;
    const int64_t depth = b.along_k ? until - from : kc;
    const int columns = b.along_k ? n : (int)(until - from);
    float* at = to + (b.along_k ? (from - k0) * NR : 0);
    const int column = b.along_k ? 0 : (int)(from - j0);
    if (b.transposed)
      pack_sliver_transposed(b.data[i] + j * b.ld[i] + k, b.ld[i], depth, columns, at, column);
    else
      pack_sliver(b.data[i] + k * b.ld[i] + j, b.ld[i], depth, columns, at, column);
  }
}

// A step of K: equal depths (to a multiple of 8), so that no thin last one pays for a whole pass over C.
DS_INLINE int64_t step_depth(int64_t k) {
  const int64_t steps = (k + KC - 1) / KC;
  return steps == 0 ? KC : round_up((k + steps - 1) / steps, 8);
}

// Slivers [begin, end) of the columns [j0, j0 + nc) of B, for all of K: [step][sliver][kc][NR].
template <class G> static void pack_slivers(const G& g, int64_t j0, int64_t nc, int64_t begin, int64_t end, float* packed) {
  const int64_t slivers = (nc + NR - 1) / NR;
  const int64_t depth = step_depth(g.k);
  for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
    const int64_t kc = smaller(depth, g.k - k0);
    for (int64_t s = begin; s < end; s++)
      pack_b(g.b, k0, kc, j0 + s * NR, (int)smaller(NR, nc - s * NR), packed + (k0 * slivers + s * kc) * NR);
  }
}

template <class T> static void round_rows(const float* from, int64_t ldf, int64_t m, int64_t n, T* c, int64_t ldc, bool accumulate) {
  for (int64_t i = 0; i < m; i++, from += ldf, c += ldc)
    for (int64_t j = 0; j < n; j += VL) {
      const int64_t lanes = smaller(VL, n - j);
      vf x = load(from + j, lanes);
      if (accumulate) x += load(c + j, lanes);
      store(c + j, x, lanes);
    }
}

// Rows [i0, i0 + m) of C over slivers [s0, s1) of the columns that start at j0. m <= MC.
template <class TA, class TB, class TC>
static void multiply_rows(const Gemm<TA, TB, TC>& g, int64_t i0, int64_t m, int64_t j0, int64_t nc, int64_t s0, int64_t s1,
                          const float* packed, float* packed_a, float* rounding) {
  const int64_t slivers = (nc + NR - 1) / NR, first = s0 * NR, n = smaller(s1 * NR, nc) - first;
  constexpr bool kDirect = dtype_of<TC>::value == F32;
  TC* c = g.c + i0 * g.ldc + j0 + first;
  float* sum = kDirect ? (float*)c : rounding;
  const int64_t ld = kDirect ? g.ldc : round_up(n, VL);
  const float* bias = g.bias ? g.bias + j0 + first : nullptr;
  const int64_t depth = step_depth(g.k);
  int64_t k0 = 0;
  do {  // once even when K = 0: C is the base then
    const int64_t kc = smaller(depth, g.k - k0);
    if (g.a_transposed)
      pack_columns(g.a + k0 * g.lda + i0, g.lda, m, kc, packed_a);
    else
      pack_rows(g.a + i0 * g.lda + k0, g.lda, m, kc, packed_a, row_stride(kc));
    Base base = k0 > 0 || (kDirect && g.accumulate) ? Base::kC : g.bias ? Base::kBias : Base::kZero;
    multiply_block({m, n, kc, packed_a, row_stride(kc), g.a_transposed ? Lie::kColumnPanels : Lie::kRows,
                    packed + (k0 * slivers + s0 * kc) * NR, NR, kc * NR, sum, ld, base, bias});
  } while ((k0 += depth) < g.k);
  if (!kDirect) round_rows(rounding, ld, m, n, c, g.ldc, g.accumulate);
}

constexpr const char* kOutOfWorkspace = "out of memory for the workspace of a matrix product";

constexpr int64_t kPackedA = MC * (KC + 32) + VL;
constexpr int64_t kRoundingColumns = 512;  // widest column group of a low-precision C

// The whole product by the calling worker alone. false: out of memory.
template <class TA, class TB, class TC> static bool gemm_serial(const Gemm<TA, TB, TC>& g, int worker) {
  const int64_t slivers = (g.n + NR - 1) / NR;
  const int64_t group = dtype_of<TC>::value == F32 ? slivers : smaller(slivers, kRoundingColumns / NR);
  float* packed = (float*)scratch(worker, 0, (size_t)(g.k * slivers * NR + kPackedA + MC * group * NR) * sizeof(float));
  if (!packed) return false;
  float *packed_a = packed + g.k * slivers * NR, *rounding = packed_a + kPackedA;
  pack_slivers(g, 0, g.n, 0, slivers, packed);
  const int64_t blocks = (g.m + MC - 1) / MC;
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t s = 0; s < slivers; s += group) {
      const int64_t i = g.m * b / blocks, end = g.m * (b + 1) / blocks;
      multiply_rows(g, i, end - i, 0, g.n, s, smaller(s + group, slivers), packed, packed_a, rounding);
    }
  return true;
}

// The whole product over all threads; call outside parallel(). false: out of memory.
template <class TA, class TB, class TC> static bool gemm(const Gemm<TA, TB, TC>& g) {
  if (g.m == 0 || g.n == 0) return true;
  bool ok = true;
  if ((double)g.m * (double)g.n * (double)g.k < 64.0 * 64 * 64) {  // a wake-up costs more than this product
    parallel(1, 1, [&](int64_t, int64_t, int worker) { ok = gemm_serial(g, worker); });
    return ok;
  }
  const int64_t threads = pool_threads();
  const int64_t wide = g.k * round_up(g.n, NR) <= kPackedB ? g.n : smaller(g.n, larger(256, kPackedB / larger(1, g.k) / NR * NR));
  float* packed = (float*)scratch(-1, 0, (size_t)(g.k * round_up(wide, NR)) * sizeof(float));
  if (!packed) return false;
  for (int64_t j0 = 0; j0 < g.n; j0 += wide) {
    const int64_t nc = smaller(wide, g.n - j0), slivers = (nc + NR - 1) / NR;
    parallel(slivers, larger(1, slivers / (8 * threads)),
             [&](int64_t begin, int64_t end, int) { pack_slivers(g, j0, nc, begin, end, packed); });
    // About four tasks a thread, so that a thread the machine takes away for a while does not hold up the rest; and
    // the same number for each. Which tasks there are changes no bits.
    int64_t blocks = (g.m + MC - 1) / MC, groups = 1;
    if (blocks < 4 * threads) blocks = smaller(round_up(blocks, threads), (g.m + MR - 1) / MR);
    while (blocks * groups < 4 * threads && slivers / (groups + 1) >= 4) groups++;
    if (dtype_of<TC>::value != F32) groups = larger(groups, (nc + kRoundingColumns - 1) / kRoundingColumns);
    const int64_t tile_columns = round_up(nc / groups + 2 * NR, NR);
    parallel(blocks * groups, 1, [&](int64_t begin, int64_t end, int worker) {
      float* mine = (float*)scratch(worker, 0, (size_t)(kPackedA + MC * tile_columns) * sizeof(float));
      if (!mine) {
        __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
        return;
      }
      for (int64_t t = begin; t < end; t++) {
        const int64_t b = t / groups, s = t % groups, i = g.m * b / blocks;
        multiply_rows(g, i, g.m * (b + 1) / blocks - i, j0, nc, slivers * s / groups, slivers * (s + 1) / groups, packed,
                      mine, mine + kPackedA);
      }
    });
  }
  return ok;
}

}  // namespace DS_ISA_NS
}  // namespace ds
