// y [batch.., M, N] = op(a) op(b); b may be one matrix for all of the batch.
#define DS_GEMM_HOME
#include "gemm_small.h"
#include "gemm_tile.h"

namespace ds {
namespace DS_ISA_NS {

void multiply_block(const Block& block) {
  const int64_t panels = panel_count(block.m);
  Tile t = {};
  t.kc = block.kc, t.a_row = block.a_row, t.b_row = block.b_row, t.c_row = block.c_row, t.base = block.base;
  for (int64_t j = 0; j < block.n; j += NR) {
    t.b = block.b + j / NR * block.b_step;
    t.n = (int)smaller(NR, block.n - j);
    // Each panel fetches its share of the next sliver (nothing new when slivers do not lie one after the other).
    const float* next = t.b + (block.b_row == NR ? block.b_step : 0);
    t.bias = block.bias ? block.bias + j : nullptr;
    for (int64_t p = 0; p < panels; p++) {
      const int64_t i = panel_begin(block.m, panels, p), height = panel_begin(block.m, panels, p + 1) - i;
      t.c = block.c + i * block.c_row + j;
      t.ahead = next + p * (block.kc * NR / panels);
      if (block.lie == Lie::kRows) {
        t.a = block.a + i * block.a_row;
        tile_of_height<false>((int)height, t);
        continue;
      }
      t.a = block.a + (block.lie == Lie::kColumnPanels ? i * block.kc : i);
      t.a_row = block.lie == Lie::kColumnPanels ? height : block.a_row;
      tile_of_height<true>((int)height, t);
    }
  }
}

template <class T> static bool matmul(const View& a, const View& b, const View& y, bool trans_a, bool trans_b) {
  Gemm<T, T, T> g = {};
  g.m = y.dims[y.rank - 2], g.n = y.dims[y.rank - 1], g.k = a.dims[a.rank - (trans_a ? 2 : 1)];
  if (y.numel == 0) return true;
  int64_t batch = y.numel / (g.m * g.n);
  const int64_t b_step = b.rank > 2 ? g.k * g.n : 0;
  if (b_step == 0 && !trans_a) g.m *= batch, batch = 1;  // one tall matrix
  g.lda = trans_a ? g.m : g.k, g.a_transposed = trans_a, g.ldc = g.n;
  const auto entry = [&](int64_t i) {
    Gemm<T, T, T> e = g;
    e.a = a.as<T>() + i * g.m * g.k;
    e.b = whole(b.as<T>() + i * b_step, trans_b ? g.k : g.n, trans_b, g.n);
    e.c = y.as<T>() + i * g.m * g.n;
    return e;
  };
  bool ok = true;
  // Many small products: one thread each. The row-wise path for few rows has other bits, so shape alone picks it.
  if (g.m > kSmallRows && batch >= 2 * pool_threads()) {
    parallel(batch, 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; i++)
        if (!gemm_serial(entry(i), worker)) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
    });
  } else {
    for (int64_t i = 0; i < batch && ok; i++) ok = multiply(entry(i));
  }
  return ok;
}

KERNEL(matmul, kFloats) {
  const View &a = c.in[0], &b = c.in[1];
  const int64_t k = a.dims[a.rank - (c.attrs[0] != 0 ? 2 : 1)], b_k = b.dims[b.rank - (c.attrs[1] != 0 ? 1 : 2)];
  if (k != b_k) return error_text("matmul: rows of op(a) have %lld elements, columns of op(b) %lld", (long long)k, (long long)b_k);
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    return matmul<decltype(t)>(c.in[0], c.in[1], c.out[0], c.attrs[0] != 0, c.attrs[1] != 0) ? nullptr : kOutOfWorkspace;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
