// LAMB (You et al., 2020) in pieces, all f32:
//   lamb_moments  m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2     with g = grad coefficient
//   lamb_update   u = m / bias1 / (sqrt(v / bias2) + eps) + weightDecay p
//   lamb_ratio    r = ||p|| / ||u|| within bounds, per parameter, from sums of squares that are added rank by rank
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(lamb_moments, kFloats) {
  const vf beta1 = constant(c.attrs[0]), one_minus_beta1 = constant(1 - c.attrs[0]), beta2 = constant(c.attrs[1]),
           one_minus_beta2 = constant(1 - c.attrs[1]);
  return update<2>(c, "lamb_moments", [=](vf g, vf (&x)[2]) {
    x[0] = fused(one_minus_beta1, g, beta1 * x[0]);
    x[1] = fused(one_minus_beta2 * g, g, beta2 * x[1]);
  });
}

KERNEL(lamb_update, dtype_bit(F32) | dtype_bit(BF16)) {
  const View &p = c.in[0], &m = c.in[1], &v = c.in[2], &u = c.out[0];
  if (m.dtype != v.dtype) return error_text("lamb_update: expected moments of one dtype, got codes %d and %d", m.dtype, v.dtype);
  if (u.dtype != F32) return error_text("lamb_update: expected an f32 update, got dtype code %d", u.dtype);
  if (m.numel != p.numel || v.numel != p.numel || u.numel != p.numel)
    return error_text("lamb_update: expected tensors of %lld elements, as the weights", (long long)p.numel);
  const vf unbias1 = constant(1 / c.attrs[0]), unbias2 = constant(1 / c.attrs[1]),
           root_unbias2 = constant(1 / __builtin_sqrt(c.attrs[1])), eps = constant(c.attrs[2]), decay = constant(c.attrs[4]);
  const bool inside = c.attrs[3] != 0;
  by_kept(p.dtype, [&](auto tp) {
    by_kept(m.dtype, [&](auto tm) {
      using P = decltype(tp);
      using M = decltype(tm);
      const auto run = [&](const auto& root) {
        map(p.numel, u.as<float>(), [=](vf p, vf m, vf v) { return fused(decay, p, m * unbias1 / root(v)); }, p.as<const P>(),
            m.as<const M>(), v.as<const M>());
      };
      if (inside) return run([=](vf v) { return vsqrt(fused(v, unbias2, eps)); });
      run([=](vf v) { return vsqrt(v) * root_unbias2 + eps; });
    });
  });
  return nullptr;
}

KERNEL(lamb_ratio, dtype_bit(F32)) {
  const float* sums = c.in[0].as<const float>();
  const float coefficient = *c.in[1].as<const float>();
  float* ratios = c.out[0].as<float>();
  const int64_t parameters = c.out[0].numel, ranks = parameters == 0 ? 0 : c.in[0].numel / (2 * parameters);
  for (int64_t i = 0; i < parameters; i++) {
    double p = 0, u = 0;
    for (int64_t rank = 0; rank < ranks; rank++) {
      p += sums[2 * (rank * parameters + i)];
      u += sums[2 * (rank * parameters + i) + 1];
    }
    double ratio = 1;
    if (p > 0 && u > 0) {
      ratio = __builtin_sqrt(p) / __builtin_sqrt(u);
      ratio = ratio < c.attrs[0] ? c.attrs[0] : ratio > c.attrs[1] ? c.attrs[1] : ratio;
    }
    ratios[i] = coefficient != coefficient ? coefficient : (float)ratio;
  }
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
