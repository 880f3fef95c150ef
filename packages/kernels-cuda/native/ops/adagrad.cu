// One Adagrad step over a flat range (Duchi, Hazan and Singer, 2011), all f32:
//   g = grad coefficient + weightDecay p
//   s += g^2 + initial,  p -= lr g / (sqrt(s) + eps)
#include "optimizer.cuh"

namespace ds {
namespace {

struct Adagrad {
  float minus_lr, eps, weight_decay, initial;

  __device__ __forceinline__ void operator()(float g, float (&x)[2]) const {
    g = fused(weight_decay, x[0], g);
    x[1] = fused(g, g, plus(x[1], initial));
    x[0] = fused(minus_lr, over(g, plus(root(x[1]), eps)), x[0]);
  }
};

}  // namespace

KERNEL(adagrad, kFloats) {
  return update<2>(c, "adagrad",
                   Adagrad{constant(-c.attrs[0]), constant(c.attrs[1]), constant(c.attrs[2]), constant(c.attrs[3])});
}

}  // namespace ds
