// One step of stochastic gradient descent over a flat range, with momentum (Polyak, 1964) or Nesterov's, all f32:
//   g = grad coefficient + weightDecay p
//   b = momentum b + (1 - dampening) g,  g = g + momentum b (Nesterov) or b       with momentum only
//   p -= lr g
#include "optimizer.cuh"

namespace ds {
namespace {

struct Plain {
  float minus_lr, weight_decay;

  __device__ __forceinline__ void operator()(float g, float (&x)[1]) const {
    x[0] = fused(minus_lr, fused(weight_decay, x[0], g), x[0]);
  }
};

template <bool nesterov> struct Momentum {
  float minus_lr, momentum, share, weight_decay;

  __device__ __forceinline__ void operator()(float g, float (&x)[2]) const {
    g = fused(weight_decay, x[0], g);
    x[1] = fused(share, g, times(momentum, x[1]));
    x[0] = fused(minus_lr, nesterov ? fused(momentum, x[1], g) : x[1], x[0]);
  }
};

}  // namespace

KERNEL(sgd, kFloats) {
  const float minus_lr = constant(-c.attrs[0]), momentum = constant(c.attrs[1]), share = constant(1 - c.attrs[2]),
              weight_decay = constant(c.attrs[4]);
  if (c.attrs[1] == 0) return update<1>(c, "sgd", Plain{minus_lr, weight_decay});
  if (c.attrs[3] != 0) return update<2>(c, "sgd", Momentum<true>{minus_lr, momentum, share, weight_decay});
  return update<2>(c, "sgd", Momentum<false>{minus_lr, momentum, share, weight_decay});
}

}  // namespace ds
