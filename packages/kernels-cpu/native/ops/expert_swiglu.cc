// SwiGLU over the experts' rows h [R, 2F] = [gate, up], times the share w that each row has of its token: row r is assignment order[r].
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

static const char* check_rows(const char* op, const View& h, const View& weights, const View& order, const View& a) {
  if (h.cols() != 2 * a.cols() || h.rows() != a.rows() || order.numel != a.rows() || weights.numel != a.rows() || a.dtype != h.dtype)
    return error_text("%s: expected h [%lld, %lld] and as many shares and places, got %lld, %lld and %lld elements", op, (long long)a.rows(),
                      (long long)(2 * a.cols()), (long long)h.numel, (long long)weights.numel, (long long)order.numel);
  return nullptr;
}

KERNEL(expert_swiglu, kFloats) {
  const View &h = c.in[0], &weights = c.in[1], &order = c.in[2], &a = c.out[0];
  if (const char* error = check_rows("expert_swiglu", h, weights, order, a)) return error;
  const int64_t F = a.cols();
  return by_float(h.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(a.rows(), row_grain(F), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; r++) {
        const vf w = splat(weights.as<const float>()[order.as<const int32_t>()[r]]);
        const T *gate = h.as<const T>() + r * 2 * F, *up = gate + F;
        T* to = a.as<T>() + r * F;
        for_vectors(0, F, [&](int64_t i, auto n) {
          const vf g = load(gate + i, n);
          store(to + i, w * (g * vsigmoid(g) * load(up + i, n)), n);
        });
      }
    });
    return nullptr;
  });
}

// da may be a's memory.
KERNEL(expert_swiglu_backward, kFloats) {
  const View &da = c.in[0], &h = c.in[1], &weights = c.in[2], &order = c.in[3], &dh = c.out[0], &a = c.out[1], &dweights = c.out[2];
  if (const char* error = check_rows("expert_swiglu_backward", h, weights, order, a)) return error;
  if (da.numel != a.numel || dh.numel != h.numel || dh.dtype != h.dtype || dweights.numel != weights.numel)
    return error_text("expert_swiglu_backward: the gradients must be like what they are of");
  const int64_t F = a.cols();
  return by_float(h.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(a.rows(), row_grain(F), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; r++) {
        const int32_t assignment = order.as<const int32_t>()[r];
        const vf w = splat(weights.as<const float>()[assignment]);
        const T *gate = h.as<const T>() + r * 2 * F, *up = gate + F, *grad = da.as<const T>() + r * F;
        T *dgate = dh.as<T>() + r * 2 * F, *dup = dgate + F, *to = a.as<T>() + r * F;
        vf sum[kParts] = {};
        for_parts(F, [&](int part, int64_t i, auto n) {
          const vf g = load(gate + i, n), u = load(up + i, n), d = load(grad + i, n);
          const vf s = vsigmoid(g), silu = g * s;
          sum[part] = fused(d, silu * u, sum[part]);
          // silu' = s + g s (1 - s)
          store(dgate + i, w * d * u * fmadd(silu, 1.0f - s, s), n);
          store(dup + i, w * d * silu, n);
          store(to + i, w * (silu * u), n);
        });
        dweights.as<float>()[assignment] = sum_parts(sum);
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
