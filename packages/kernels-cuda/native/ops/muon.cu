// What Muon (Jordan et al., 2024) needs besides matrix products, all f32:
//   muon_momentum  m = momentum m + (1 - momentum) g,  u = m, or momentum m + (1 - momentum) g (Nesterov)   with g = grad coefficient;
//                  a NaN coefficient leaves m as it is, and u is m
//   normalize      y = x / (sqrt(squares) + eps)
//   blend          y = alpha x + beta y
#include "optimizer.cuh"

namespace ds {
namespace {

struct Momentum {
  const float* coefficients;
  float keep, share;
  bool nesterov;

  __device__ __forceinline__ void operator()(float grad, float mean, float& m, float& u) const {
    const float coefficient = __ldg(coefficients);
    m = mean, u = mean;
    if (coefficient != coefficient) return;
    const float part = times(share, times(grad, coefficient));
    m = fused(keep, mean, part);
    u = nesterov ? fused(keep, m, part) : m;
  }
};

struct Normalize {
  const float* squares;
  float eps;
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = over(x, plus(root(__ldg(squares)), eps)); }
};

struct Blend {
  float alpha, beta;
  __device__ __forceinline__ void operator()(float x, float y, float& result, float&) const { result = fused(alpha, x, times(beta, y)); }
};

}  // namespace

KERNEL(muon_momentum, kFloats) {
  const View &grad = c.in[0], &buffer = c.out[0], &update = c.out[1];
  if (buffer.numel != grad.numel || update.numel != grad.numel)
    return error_text("muon_momentum: expected outputs as long as the gradient, %lld elements, got %lld and %lld",
                      (long long)grad.numel, (long long)buffer.numel, (long long)update.numel);
  if (buffer.dtype != F32 && buffer.dtype != BF16)
    return error_text("muon_momentum: expected an f32 or bf16 momentum, got dtype code %d", buffer.dtype);
  const Momentum f = {c.in[1].as<const float>(), constant(c.attrs[0]), constant(1 - c.attrs[0]), c.attrs[1] != 0};
  by_float(grad.dtype, [&](auto tg) {
    by_kept(buffer.dtype, [&](auto tm) {
      by_float(update.dtype, [&](auto tu) {
        using G = typename decltype(tg)::type;
        using M = typename decltype(tm)::type;
        using U = typename decltype(tu)::type;
        map(c.stream, grad.numel, f, grad.as<const G>(), buffer.as<const M>(), buffer.as<M>(), update.as<U>());
      });
    });
  });
  return nullptr;
}

KERNEL(normalize, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.numel != y.numel || x.dtype != y.dtype)
    return error_text("normalize: expected y to be like x (dtype code %d, %lld elements), got dtype code %d, %lld elements", x.dtype,
                      (long long)x.numel, y.dtype, (long long)y.numel);
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    map(c.stream, x.numel, Normalize{c.in[1].as<const float>(), constant(c.attrs[0])}, x.as<const T>(), kNone, y.as<T>(), kNone);
  });
  return nullptr;
}

KERNEL(blend, kFloats) {
  if (const char* error = check_alike(c, "blend", 1, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    map(c.stream, c.out[0].numel, Blend{constant(c.attrs[0]), constant(c.attrs[1])}, c.in[0].as<const T>(), c.out[0].as<const T>(),
        c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

}  // namespace ds
