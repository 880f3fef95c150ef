// One Adagrad step over a flat range (Duchi, Hazan and Singer, 2011), all f32:
//   g = grad coefficient + weightDecay p
//   s += g^2 + initial,  p -= lr g / (sqrt(s) + eps)
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(adagrad, kFloats) {
  const vf minus_lr = constant(-c.attrs[0]), eps = constant(c.attrs[1]), weight_decay = constant(c.attrs[2]),
           initial = constant(c.attrs[3]);
  return update<2>(c, "adagrad", [=](vf g, vf (&x)[2]) {
    g = fused(weight_decay, x[0], g);
    x[1] = fused(g, g, x[1] + initial);
    x[0] = fused(minus_lr, g / (vsqrt(x[1]) + eps), x[0]);
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
