// One Adam step over a flat range (Kingma and Ba, 2015; decoupled weight decay: Loshchilov and Hutter, 2019), all f32:
//   g = grad coefficient (+ weightDecay p when not decoupled)
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr weightDecay) when decoupled,  p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps)
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

struct Adam {
  vf weight_decay, one_minus_beta1, beta1, one_minus_beta2, beta2, root_bias2, eps, decay, minus_step;
};

template <bool decoupled> DS_INLINE void adam(const Adam& a, vf g, vf& p, vf& m, vf& v) {
  if (!decoupled) g = fused(a.weight_decay, p, g);
  m = fused(a.one_minus_beta1, g, a.beta1 * m);
  v = fused(a.one_minus_beta2 * g, g, a.beta2 * v);
  vf denominator = vsqrt(v) * a.root_bias2 + a.eps;
  if (decoupled) p = p * a.decay;
  p = fused(a.minus_step, m / denominator, p);
}

KERNEL(adamw, kFloats) {
  const double lr = c.attrs[0], beta1 = c.attrs[1], beta2 = c.attrs[2], eps = c.attrs[3], decay = c.attrs[4],
               bias1 = c.attrs[5], bias2 = c.attrs[6];
  const Adam a = {constant(decay), constant(1 - beta1),  constant(beta1),
                  constant(1 - beta2), constant(beta2), constant(1 / __builtin_sqrt(bias2)),
                  constant(eps),   constant(1 - lr * decay), constant(-(lr / bias1))};
  if (c.attrs[7] != 0) return update<3>(c, "adamw", [=](vf g, vf (&x)[3]) { adam<true>(a, g, x[0], x[1], x[2]); });
  return update<3>(c, "adamw", [=](vf g, vf (&x)[3]) { adam<false>(a, g, x[0], x[1], x[2]); });
}

}  // namespace DS_ISA_NS
}  // namespace ds
