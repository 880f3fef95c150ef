// SwiGLU (Shazeer, 2020): x = [gate, up] along the last axis, y = silu(gate) * up with silu(g) = g sigmoid(g).
// x [rows, 2F], y [rows, F]
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

// Tasks are (row, block of columns), so that one long row (decoding) is shared out as well as many short ones.
constexpr int64_t kColumnBlock = 8192;

template <class F> static void for_column_blocks(int64_t rows, int64_t columns, const F& body) {
  int64_t blocks = (columns + kColumnBlock - 1) / kColumnBlock;
  int64_t grain = kGrain / (columns < kColumnBlock ? columns + 1 : kColumnBlock) + 1;
  parallel(rows * blocks, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; task++) {
      int64_t from = task % blocks * kColumnBlock, to = from + kColumnBlock;
      body(task / blocks, from, to < columns ? to : columns);
    }
  });
}

static const char* check_halves(const char* op, const View& x, const View& y) {
  if (x.cols() != 2 * y.cols() || x.numel != 2 * y.numel || x.dtype != y.dtype)
    return error_text("%s: expected the last axis of x (%lld) to be twice that of y (%lld), same rows and dtype", op,
                      (long long)x.cols(), (long long)y.cols());
  return nullptr;
}

KERNEL(swiglu, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (const char* error = check_halves("swiglu", x, y)) return error;
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    int64_t F = y.cols();
    for_column_blocks(y.rows(), F, [&](int64_t row, int64_t from, int64_t to) {
      const T *gate = x.as<const T>() + row * 2 * F, *up = gate + F;
      T* out = y.as<T>() + row * F;
      for_vectors(from, to, [&](int64_t i, auto n) {
        vf g = load(gate + i, n);
        store(out + i, g * vsigmoid(g) * load(up + i, n), n);
      });
    });
    return nullptr;
  });
}

KERNEL(swiglu_backward, kFloats) {
  const View &dy = c.in[0], &x = c.in[1], &dx = c.out[0];
  if (const char* error = check_halves("swiglu_backward", x, dy)) return error;
  if (dx.numel != x.numel || dx.dtype != x.dtype) return error_text("swiglu_backward: dx must be like x");
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    int64_t F = dy.cols();
    for_column_blocks(dy.rows(), F, [&](int64_t row, int64_t from, int64_t to) {
      const T *gate = x.as<const T>() + row * 2 * F, *up = gate + F, *grad = dy.as<const T>() + row * F;
      T *dgate = dx.as<T>() + row * 2 * F, *dup = dgate + F;
      for_vectors(from, to, [&](int64_t i, auto n) {
        vf g = load(gate + i, n), u = load(up + i, n), d = load(grad + i, n);
        vf s = vsigmoid(g), silu = g * s;
        // silu' = s + g s (1 - s)
        store(dgate + i, d * u * fmadd(silu, 1.0f - s, s), n);
        store(dup + i, d * silu, n);
      });
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
