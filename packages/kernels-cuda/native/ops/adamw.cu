// One Adam step over a flat range (Kingma and Ba, 2015; decoupled weight decay: Loshchilov and Hutter, 2019), all f32:
//   g = grad coefficient (+ weightDecay p when not decoupled)
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr weightDecay) when decoupled,  p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps)
#include <cmath>

#include "optimizer.cuh"

namespace ds {
namespace {

template <bool decoupled> struct Adam {
  float weight_decay, one_minus_beta1, beta1, one_minus_beta2, beta2, root_bias2, eps, decay, minus_step;

  __device__ __forceinline__ void operator()(float g, float (&x)[3]) const {
    float &p = x[0], &m = x[1], &v = x[2];
    if (!decoupled) g = fused(weight_decay, p, g);
    m = fused(one_minus_beta1, g, times(beta1, m));
    v = fused(times(one_minus_beta2, g), g, times(beta2, v));
    const float denominator = plus(times(root(v), root_bias2), eps);
    if (decoupled) p = times(p, decay);
    p = fused(minus_step, over(m, denominator), p);
  }
};

template <bool decoupled> const char* adam(const Call& c) {
  const double lr = c.attrs[0], beta1 = c.attrs[1], beta2 = c.attrs[2], eps = c.attrs[3], decay = c.attrs[4],
               bias1 = c.attrs[5], bias2 = c.attrs[6];
  return update<3>(c, "adamw",
                   Adam<decoupled>{constant(decay), constant(1 - beta1), constant(beta1), constant(1 - beta2), constant(beta2),
                                   constant(1 / std::sqrt(bias2)), constant(eps), constant(1 - lr * decay),
                                   constant(-(lr / bias1))});
}

}  // namespace

KERNEL(adamw, kFloats) { return c.attrs[7] != 0 ? adam<true>(c) : adam<false>(c); }

}  // namespace ds
