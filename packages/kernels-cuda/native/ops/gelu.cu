// GELU and its gradients; the function itself is in activation.cuh.
#include "../activation.cuh"
#include "../elementwise.cuh"

namespace ds {
namespace {

template <bool Tanh, bool Fast> struct Forward {
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = x * gelu_value<Tanh, Fast>(x).phi; }
};
template <bool Tanh, bool Fast> struct Backward {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float&) const { dx = dy * gelu_value<Tanh, Fast>(x).slope; }
};
template <bool Tanh, bool Fast> struct Recompute {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float& y) const {
    const GeluValue v = gelu_value<Tanh, Fast>(x);
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
