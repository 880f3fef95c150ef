// Gated activations (Shazeer, "GLU variants improve transformer", 2020): x = [gate, up] along the last axis, y = act(gate) up.
// x [rows, 2F], y [rows, F]
#pragma once
#include "elementwise.h"

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

// value(gate) is act's value.
template <class Value> static const char* gated(const char* op, const Call& c, const Value& value) {
  const View &x = c.in[0], &y = c.out[0];
  if (const char* error = check_halves(op, x, y)) return error;
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    int64_t F = y.cols();
    for_column_blocks(y.rows(), F, [&](int64_t row, int64_t from, int64_t to) {
      const T *gate = x.as<const T>() + row * 2 * F, *up = gate + F;
      T* out = y.as<T>() + row * F;
      for_vectors(from, to, [&](int64_t i, auto n) { store(out + i, value(load(gate + i, n)) * load(up + i, n), n); });
    });
    return nullptr;
  });
}

// both(gate, value, slope) sets act's value and derivative.
template <class Both> static const char* gated_backward(const char* op, const Call& c, const Both& both) {
  const View &dy = c.in[0], &x = c.in[1], &dx = c.out[0];
  if (const char* error = check_halves(op, x, dy)) return error;
  if (dx.numel != x.numel || dx.dtype != x.dtype) return error_text("%s: dx must be like x", op);
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    int64_t F = dy.cols();
    for_column_blocks(dy.rows(), F, [&](int64_t row, int64_t from, int64_t to) {
      const T *gate = x.as<const T>() + row * 2 * F, *up = gate + F, *grad = dy.as<const T>() + row * F;
      T *dgate = dx.as<T>() + row * 2 * F, *dup = dgate + F;
      for_vectors(from, to, [&](int64_t i, auto n) {
        vf u = load(up + i, n), d = load(grad + i, n), value, slope;
        both(load(gate + i, n), value, slope);
        store(dgate + i, d * u * slope, n);
        store(dup + i, d * value, n);
      });
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
