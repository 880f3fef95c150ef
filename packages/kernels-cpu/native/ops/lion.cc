// One Lion step over a flat range (Chen et al., 2023), all f32:
//   u = sign(beta1 m + (1 - beta1) g) with g = grad coefficient
//   p = p (1 - lr weightDecay) - lr u,  m = beta2 m + (1 - beta2) g
// sign(0) is 0, so that weights without a gradient stay; NaN stays NaN.
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

DS_INLINE vf sign(vf x) {
  vf one = copy_sign(splat(1.0f), x);
  return as_float((as_int(one) & (x != 0.0f)) | (as_int(x) & (x != x)));
}

KERNEL(lion, kFloats) {
  const double lr = c.attrs[0], decay = c.attrs[3];
  const vf minus_lr = constant(-lr), beta1 = constant(c.attrs[1]), one_minus_beta1 = constant(1 - c.attrs[1]),
           beta2 = constant(c.attrs[2]), one_minus_beta2 = constant(1 - c.attrs[2]), keep = constant(1 - lr * decay);
  return update<2>(c, "lion", [=](vf g, vf (&x)[2]) {
    vf u = sign(fused(one_minus_beta1, g, beta1 * x[1]));
    x[1] = fused(one_minus_beta2, g, beta2 * x[1]);
    x[0] = fused(minus_lr, u, x[0] * keep);
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
