// GELU (Hendrycks and Gimpel, 2016): y = x Phi(x), Phi the normal distribution function.
// tanh = 1 is the approximation of GPT-2 ("gelu_new"): Phi(x) ~ (1 + tanh u) / 2 = sigmoid(2u), u = k (x + a x^3), written with the
// sigmoid because it keeps its relative accuracy for very negative x where 1 + tanh cancels.
// tanh = 0 is the exact form, (1 + erf(x / sqrt 2)) / 2, which cancels there too; hence the CPU kernels' fit of its tail.
#include "../activation.cuh"
#include "../elementwise.cuh"

namespace ds {
namespace {

constexpr float kTwoK = 1.5957691216057308f;     // 2 sqrt(2 / pi)
constexpr float kTwoKA = 0.07135481282553125f;   // 2 sqrt(2 / pi) * 0.044715
constexpr float kDensity = 0.3989422804014327f;  // 1 / sqrt(2 pi)

// Phi(x) and d/dx x Phi(x) = Phi + x Phi'
struct Value {
  float phi, slope;
};

template <bool Fast> __device__ __forceinline__ Value by_tanh(float x) {
  const float square = x * x, phi = sigmoid<Fast>(x * fmaf(kTwoKA, square, kTwoK));
  const float u = x * fmaf(3 * kTwoKA, square, kTwoK);  // x d(2u)/dx
  return {phi, fmaf(phi * (1.0f - phi), u, phi)};
}

// Phi(-|x|) = e^(-x^2 / 2) t P(t) with t = 1 / (1 + 0.21 |x|); P is a minimax fit to a relative error of 2e-8.
template <bool Fast> __device__ __forceinline__ Value exactly(float x) {
  const float bell = exp_of<Fast>(x * x * -0.5f), t = reciprocal<Fast>(fmaf(0.21f, fabsf(x), 1.0f));
  float p = -0.0712958f;
  p = fmaf(p, t, 0.28180945f);
  p = fmaf(p, t, -0.32650349f);
  p = fmaf(p, t, 0.3449986f);
  p = fmaf(p, t, -0.09078107f);
  p = fmaf(p, t, 0.12347584f);
  p = fmaf(p, t, 0.06956875f);
  p = fmaf(p, t, 0.08501259f);
  p = fmaf(p, t, 0.08371514f);
  const float tail = p * t * bell, phi = x < 0.0f ? tail : 1.0f - tail;
  return {phi, fmaf(x * kDensity, bell, phi)};
}

template <bool Tanh, bool Fast> __device__ __forceinline__ Value value(float x) {
  if constexpr (Tanh) return by_tanh<Fast>(x);
  return exactly<Fast>(x);
}

template <bool Tanh, bool Fast> struct Forward {
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = x * value<Tanh, Fast>(x).phi; }
};
template <bool Tanh, bool Fast> struct Backward {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float&) const { dx = dy * value<Tanh, Fast>(x).slope; }
};
template <bool Tanh, bool Fast> struct Recompute {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float& y) const {
    const Value v = value<Tanh, Fast>(x);
    dx = dy * v.slope;
    y = x * v.phi;
  }
};

// f(Tag<T>, whether tanh) for the call's dtype and attribute.
template <class F> void by_kind(const Call& c, const F& f) {
  by_float(c.in[0].dtype, [&](auto t) {
    if (c.attrs[0] != 0)
      f(t, std::true_type{});
    else
      f(t, std::false_type{});
  });
}

}  // namespace

KERNEL(gelu, kFloats) {
  if (const char* error = check_alike(c, "gelu", 1, 1)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Forward<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), kNone, c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

KERNEL(gelu_backward, kFloats) {
  if (const char* error = check_alike(c, "gelu_backward", 2, 1)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Backward<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

// (dy, x) -> dx and once more y: a layer that didn't keep its activation needs both, and x is read once for them.
KERNEL(gelu_backward_recompute, kFloats) {
  if (const char* error = check_alike(c, "gelu_backward_recompute", 2, 2)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Recompute<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), c.out[1].as<T>());
  });
  return nullptr;
}

}  // namespace ds
