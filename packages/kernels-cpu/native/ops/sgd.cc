// One step of stochastic gradient descent over a flat range, with momentum (Polyak, 1964) or Nesterov's, all f32:
//   g = grad coefficient + weightDecay p
//   b = momentum b + (1 - dampening) g,  g = g + momentum b (Nesterov) or b       with momentum only
//   p -= lr g
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(sgd, kFloats) {
  const vf minus_lr = constant(-c.attrs[0]), momentum = constant(c.attrs[1]), share = constant(1 - c.attrs[2]),
           weight_decay = constant(c.attrs[4]);
  if (c.attrs[1] == 0)
    return update<1>(c, "sgd", [=](vf g, vf (&x)[1]) { x[0] = fused(minus_lr, fused(weight_decay, x[0], g), x[0]); });
  if (c.attrs[3] != 0)
    return update<2>(c, "sgd", [=](vf g, vf (&x)[2]) {
      g = fused(weight_decay, x[0], g);
      x[1] = fused(share, g, momentum * x[1]);
      x[0] = fused(minus_lr, fused(momentum, x[1], g), x[0]);
    });
  return update<2>(c, "sgd", [=](vf g, vf (&x)[2]) {
    g = fused(weight_decay, x[0], g);
    x[1] = fused(share, g, momentum * x[1]);
    x[0] = fused(minus_lr, x[1], x[0]);
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
