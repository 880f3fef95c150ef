// y [rows, S] = x [rows, I] [W_0 .. W_{n-1}] + [b_0 .. b_{n-1}], S = sum of O_i: several weights (query, key, value; gate,
// up) as one product. layout 0 stores W as [O, I] (torch's Linear), layout 1 as [I, O] (GPT-2's Conv1D).
#include "gemm_small.h"

namespace ds {
namespace DS_ISA_NS {

// The weights as one op(B): [I, S] for the forward, [S, I] for the input gradient.
template <class T> static Pieces<T> weights(const View* w, int n, int layout, bool backward) {
  Pieces<T> p = {};
  p.count = n, p.along_k = backward;
  p.transposed = (layout == 0) != backward;
  for (int i = 0; i < n; i++) {
    p.data[i] = w[i].as<T>();
    p.extent[i] = w[i].dims[layout == 0 ? 0 : 1];
    p.ld[i] = w[i].dims[1];
  }
  return p;
}

// Weights must take rows of `inputs` and together give rows of `outputs`, or no more than those where `some` will do.
static const char* check_weights(const char* op, const View* w, int n, int layout, int64_t inputs, int64_t outputs,
                                 bool some = false) {
  if (n > kMaxPieces) return error_text("%s: at most %d weights at once, got %d", op, kMaxPieces, n);
  int64_t sum = 0;
  for (int i = 0; i < n; i++) {
    const int64_t in = w[i].dims[layout == 0 ? 1 : 0];
    if (in != inputs) return error_text("%s: weight %d takes rows of %lld, got %lld", op, i, (long long)in, (long long)inputs);
    sum += w[i].dims[layout == 0 ? 0 : 1];
  }
  if (sum == outputs || (some && sum < outputs)) return nullptr;
  return error_text("%s: the weights give rows of %lld, the other side has %lld", op, (long long)sum, (long long)outputs);
}

template <class T> static const char* linear(const Call& c, int n, bool has_bias, int layout) {
  const View &x = c.in[0], &y = c.out[0];
  Gemm<T, T, T> g = {};
  g.m = x.rows(), g.n = y.cols(), g.k = x.cols();
  g.a = x.as<T>(), g.lda = g.k, g.c = y.as<T>(), g.ldc = g.n;
  g.b = weights<T>(c.in + 1, n, layout, false);
  if (has_bias) {
    float* bias = (float*)scratch(-1, 1, (size_t)(g.n + NR) * sizeof(float));
    if (!bias) return kOutOfWorkspace;
    int64_t at = 0;
    for (int i = 0; i < n; i++)
      for (int64_t j = 0; j < g.b.extent[i]; j++) bias[at++] = load_scalar(c.in[1 + n + i].as<T>() + j);
    g.bias = bias;
  }
  return multiply(g) ? nullptr : kOutOfWorkspace;
}

KERNEL(linear, kFloats) {
  const int n = (int)c.attrs[0];
  if (const char* error = check_weights("linear", c.in + 1, n, (int)c.attrs[2], c.in[0].cols(), c.out[0].cols())) return error;
  return by_float(c.in[0].dtype, [&](auto t) { return linear<decltype(t)>(c, n, c.attrs[1] != 0, (int)c.attrs[2]); });
}

// dx [rows, I] = sum_i dy_i W_i: one product over the concatenated S, so one accumulation in f32. The dy_i are dy's columns one
// after another from columnOffset on.
KERNEL(linear_dx, kFloats) {
  const int n = (int)c.attrs[0], layout = (int)c.attrs[1];
  const int64_t offset = (int64_t)c.attrs[2];
  const int64_t left = c.in[0].cols() - offset;
  if (const char* error = check_weights("linear_dx", c.in + 1, n, layout, c.out[0].cols(), left, true)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const View &dy = c.in[0], &dx = c.out[0];
    Gemm<T, T, T> g = {};
    g.b = weights<T>(c.in + 1, n, layout, true);
    g.m = dy.rows(), g.n = dx.cols();
    for (int i = 0; i < n; i++) g.k += g.b.extent[i];
    g.a = dy.as<T>() + offset, g.lda = dy.cols(), g.c = dx.as<T>(), g.ldc = g.n;
    return multiply(g) ? nullptr : kOutOfWorkspace;
  });
}

// y [rows, S] += x W' on W's columns of y, from columnOffset on: W [O, K].
KERNEL(linear_add, kFloats) {
  const View &x = c.in[0], &w = c.in[1], &y = c.out[0];
  const int64_t offset = (int64_t)c.attrs[0];
  if (x.rows() != y.rows()) return error_text("linear_add: x has %lld rows, y %lld", (long long)x.rows(), (long long)y.rows());
  if (const char* error = check_weights("linear_add", &w, 1, 0, x.cols(), y.cols() - offset, true)) return error;
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    Gemm<T, T, T> g = {};
    g.m = x.rows(), g.n = w.dims[0], g.k = x.cols();
    g.a = x.as<T>(), g.lda = g.k, g.b = weights<T>(&w, 1, 0, false);
    g.c = y.as<T>() + offset, g.ldc = y.cols(), g.accumulate = true;
    return gemm(g) ? nullptr : kOutOfWorkspace;
  });
}

// One dw, of the columns [offset, offset + columns) of dy: dy' x [columns, I], or x' dy [I, columns] for layout 1.
template <class T, class TW> static const char* linear_dw(const Call& c, const View& dw, int64_t offset, int64_t columns) {
  const View &dy = c.in[0], &x = c.in[1];
  const T* slice = dy.as<T>() + offset;
  Gemm<T, T, TW> g = {};
  g.k = x.rows();
  g.a_transposed = true;
  g.c = dw.as<TW>(), g.accumulate = c.attrs[3] != 0;
  if (c.attrs[2] == 0) {
    g.m = columns, g.n = x.cols();
    g.a = slice, g.lda = dy.cols();
    g.b = whole(x.as<T>(), x.cols(), false, g.n);
  } else {
    g.m = x.cols(), g.n = columns;
    g.a = x.as<T>(), g.lda = x.cols();
    g.b = whole(slice, dy.cols(), false, g.n);
  }
  g.ldc = g.n;
  return gemm(g) ? nullptr : kOutOfWorkspace;
}

// The columns of dy that the dw take, one after another from columnOffset on, are given by their shapes.
KERNEL(linear_dw, kFloats) {
  const View &dy = c.in[0], &x = c.in[1];
  const int layout = (int)c.attrs[2];
  int64_t offset = (int64_t)c.attrs[1], end = offset;
  bool fits = dy.rows() == x.rows();
  for (int i = 0; i < c.n_out; i++) {
    fits = fits && c.out[i].dims[layout == 0 ? 1 : 0] == x.cols();
    end += c.out[i].dims[layout == 0 ? 0 : 1];
  }
  if (!fits || end > dy.cols())
    return error_text("linear_dw: dy, x and dw do not fit together (columns %lld to %lld of %lld)", (long long)offset, (long long)end,
                      (long long)dy.cols());
  for (int i = 0; i < c.n_out; i++) {
    const View& dw = c.out[i];
    const int64_t columns = dw.dims[layout == 0 ? 0 : 1];
    const char* error = by_float(dy.dtype, [&](auto t) -> const char* {
      using T = decltype(t);
      if (dw.dtype == F32) return linear_dw<T, float>(c, dw, offset, columns);
      return by_float(dw.dtype, [&](auto w) { return linear_dw<T, decltype(w)>(c, dw, offset, columns); });
    });
    if (error) return error;
    offset += columns;
  }
  return nullptr;
}

// out [columns] = sum of the rows of dy's columns [offset, ..): a bias gradient. A column is one worker's; its sum
// goes in runs of 256 rows, so that its error grows with the run and the number of runs, not with their product.
template <class T, class TO>
static void column_sum(const View& dy, int64_t offset, int64_t begin, int64_t end, TO* out, bool accumulate) {
  constexpr int64_t kRun = 256;
  const int64_t rows = dy.rows(), ld = dy.cols();
  for (int64_t j = begin; j < end; j += VL) {
    const int64_t lanes = smaller(VL, end - j);
    vf total = vf{};
    for (int64_t r = 0; r < rows; r += kRun) {
      vf run = vf{};
      const T* row = dy.as<T>() + r * ld + offset + j;
      for (int64_t i = smaller(kRun, rows - r); i > 0; i--, row += ld) run += lanes == VL ? load(row) : load(row, lanes);
      total += run;
    }
    if (accumulate) total += load(out + j, lanes);
    store(out + j, total, lanes);
  }
}

KERNEL(column_sum, kFloats) {
  const View& dy = c.in[0];
  const bool accumulate = c.attrs[2] != 0;
  int64_t offset = (int64_t)c.attrs[1], columns = 0;
  for (int i = 0; i < c.n_out; i++) columns += c.out[i].numel;
  if (offset + columns > dy.cols())
    return error_text("column_sum: columns %lld to %lld of %lld", (long long)offset, (long long)(offset + columns), (long long)dy.cols());
  for (int i = 0; i < c.n_out; offset += c.out[i].numel, i++) {
    const View& sum = c.out[i];
    by_float(dy.dtype, [&](auto t) -> const char* {
      return by_float(sum.dtype, [&](auto o) -> const char* {
        parallel(sum.numel, 4 * VL, [&](int64_t begin, int64_t end, int) {
          column_sum<decltype(t)>(dy, offset, begin, end, sum.as<decltype(o)>(), accumulate);
        });
        return nullptr;
      });
    });
  }
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
