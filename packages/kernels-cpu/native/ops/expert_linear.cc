// Products of rows by the weights of their experts, an expert after the other: the rows [offsets[e], offsets[e + 1]) are expert e's. An
// operand that lies by token (gather = k, not 0) is first brought together: the row at place r is that of token order[r] / k.
#include "gemm_small.h"
#include "lanes.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int kGathered = 4;  // scratch slots of the two operands, beside those of products

struct Experts {
  const int32_t *order, *offsets;
  int64_t count;
  int64_t rows(int64_t e) const { return offsets[e + 1] - offsets[e]; }
};

// Places come from a routing; a caller of the raw kernels might hand over anything.
static const char* check_experts(const char* op, const View& order, const View& offsets, Experts& experts) {
  experts = {order.as<const int32_t>(), offsets.as<const int32_t>(), offsets.numel - 1};
  for (int64_t e = 0; e < experts.count; e++)
    if (experts.offsets[0] != 0 || experts.rows(e) < 0 || experts.offsets[experts.count] > order.numel)
      return error_text("%s: offsets must rise from 0 to at most %lld", op, (long long)order.numel);
  return nullptr;
}

// The rows of expert e of an operand, neighbours in memory. nullptr: out of memory.
template <class T> static const T* rows_of(const View& x, const Experts& experts, int64_t e, int64_t gather, int operand) {
  const int64_t C = x.cols(), first = experts.offsets[e];
  if (!gather) return x.as<const T>() + first * C;
  T* rows = (T*)scratch(-1, kGathered + operand, (size_t)(experts.rows(e) * C + 1) * sizeof(T));
  if (!rows) return nullptr;
  parallel(experts.rows(e), row_grain(C), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++)
      memcpy(rows + r * C, x.as<const T>() + experts.order[first + r] / gather * C, (size_t)C * sizeof(T));
  });
  return rows;
}

// y_e = x_e [W_0' W_1' ..] for all experts, or backward dx_e = sum_j dy_j W_j.
static const char* grouped(const char* op, const Call& c, bool backward) {
  const View &x = c.in[0], &order = c.in[1], &offsets = c.in[2], &y = c.out[0];
  const int n = (int)c.attrs[0];
  const int64_t gather = (int64_t)c.attrs[1];
  Experts experts;
  if (const char* error = check_experts(op, order, offsets, experts)) return error;
  const View* w = c.in + 3;
  const int64_t out = w[0].dims[0], size = w[0].dims[1], into = backward ? n * out : size, from = backward ? size : n * out;
  if (n > kMaxPieces || c.n_in != 3 + n * experts.count || x.cols() != into || y.cols() != from || y.rows() != order.numel ||
      x.rows() * (gather ? gather : 1) != order.numel)
    return error_text("%s: %d weights [%lld, %lld] of %lld experts, rows of %lld and %lld do not fit together", op, n, (long long)out,
                      (long long)size, (long long)experts.count, (long long)x.cols(), (long long)y.cols());
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    for (int64_t e = 0; e < experts.count; e++) {
      if (experts.rows(e) == 0) continue;
      Gemm<T, T, T> g = {};
      g.m = experts.rows(e), g.n = y.cols(), g.k = x.cols();
      g.a = rows_of<T>(x, experts, e, gather, 0), g.lda = g.k;
      if (!g.a) return kOutOfWorkspace;
      g.c = y.as<T>() + experts.offsets[e] * g.n, g.ldc = g.n;
      g.b.count = n, g.b.along_k = backward && n > 1, g.b.transposed = !backward;
      for (int i = 0; i < n; i++) g.b.data[i] = w[i * experts.count + e].as<const T>(), g.b.extent[i] = backward && n == 1 ? size : out, g.b.ld[i] = size;
      if (!multiply(g)) return kOutOfWorkspace;
    }
    return nullptr;
  });
}

KERNEL(expert_linear, kFloats) { return grouped("expert_linear", c, false); }
KERNEL(expert_linear_dx, kFloats) { return grouped("expert_linear_dx", c, true); }

template <class T, class TW>
static const char* expert_dw(const View& dy, const View& x, const Experts& experts, int64_t e, int64_t offset, int64_t gather_dy,
                             int64_t gather_x, const View& dw, bool accumulate) {
  const T *left = rows_of<T>(dy, experts, e, gather_dy, 0), *right = rows_of<T>(x, experts, e, gather_x, 1);
  if (!left || !right) return kOutOfWorkspace;
  Gemm<T, T, TW> g = {};
  g.m = dw.dims[0], g.n = x.cols(), g.k = experts.rows(e);
  g.a = left + offset, g.lda = dy.cols(), g.a_transposed = true;
  g.b = whole(right, x.cols(), false, g.n);
  g.c = dw.as<TW>(), g.ldc = g.n, g.accumulate = accumulate;
  return gemm(g) ? nullptr : kOutOfWorkspace;
}

KERNEL(expert_linear_dw, kFloats) {
  const View &dy = c.in[0], &x = c.in[1], &order = c.in[2], &offsets = c.in[3];
  const int64_t first = (int64_t)c.attrs[0], offset = (int64_t)c.attrs[1], gather_dy = (int64_t)c.attrs[2], gather_x = (int64_t)c.attrs[3];
  const bool accumulate = c.attrs[4] != 0;
  Experts experts;
  if (const char* error = check_experts("expert_linear_dw", order, offsets, experts)) return error;
  bool fits = first + c.n_out <= experts.count && dy.rows() * (gather_dy ? gather_dy : 1) == order.numel &&
              x.rows() * (gather_x ? gather_x : 1) == order.numel;
  for (int i = 0; i < c.n_out; i++) fits = fits && c.out[i].cols() == x.cols() && offset + c.out[i].rows() <= dy.cols();
  if (!fits) return error_text("expert_linear_dw: dy, x and the gradients of %d experts from %lld on do not fit together", c.n_out, (long long)first);
  for (int i = 0; i < c.n_out; i++) {
    const View& dw = c.out[i];
    if (accumulate && experts.rows(first + i) == 0) continue;
    const char* error = by_float(dy.dtype, [&](auto t) -> const char* {
      using T = decltype(t);
      return by_float(dw.dtype, [&](auto w) -> const char* {
        return expert_dw<T, decltype(w)>(dy, x, experts, first + i, offset, gather_dy, gather_x, dw, accumulate);
      });
    });
    if (error) return error;
  }
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
