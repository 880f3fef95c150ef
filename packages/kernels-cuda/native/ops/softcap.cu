// y = cap tanh(x / cap)
#include "../elementwise.cuh"

namespace ds {
namespace {

struct Forward {
  float cap, inverse;
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = cap * tanhf(x * inverse); }
};
struct Backward {
  float inverse;
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float&) const {
    const float bent = tanhf(x * inverse);
    dx = dy * fmaf(-bent, bent, 1.0f);
  }
};

}  // namespace

KERNEL(softcap, kFloats) {
  if (const char* error = check_alike(c, "softcap", 1, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const Forward f = {float(c.attrs[0]), float(1 / c.attrs[0])};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), kNone, c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

KERNEL(softcap_backward, kFloats) {
  if (const char* error = check_alike(c, "softcap_backward", 2, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const Backward f = {float(1 / c.attrs[0])};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

}  // namespace ds
