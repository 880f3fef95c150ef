// One Lion step over a flat range (Chen et al., 2023), all f32:
//   u = sign(beta1 m + (1 - beta1) g) with g = grad coefficient
//   p = p (1 - lr weightDecay) - lr u,  m = beta2 m + (1 - beta2) g
// sign(0) is 0, so that weights without a gradient stay; NaN stays NaN.
#include "optimizer.cuh"

namespace ds {
namespace {

__device__ __forceinline__ float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? 0.0f : x; }

struct Lion {
  float minus_lr, beta1, one_minus_beta1, beta2, one_minus_beta2, keep;

  __device__ __forceinline__ void operator()(float g, float (&x)[2]) const {
    const float u = sign(fused(one_minus_beta1, g, times(beta1, x[1])));
    x[1] = fused(one_minus_beta2, g, times(beta2, x[1]));
    x[0] = fused(minus_lr, u, times(x[0], keep));
  }
};

}  // namespace

KERNEL(lion, kFloats) {
  const double lr = c.attrs[0], decay = c.attrs[3];
  return update<2>(c, "lion",
                   Lion{constant(-lr), constant(c.attrs[1]), constant(1 - c.attrs[1]), constant(c.attrs[2]),
                        constant(1 - c.attrs[2]), constant(1 - lr * decay)});
}

}  // namespace ds
