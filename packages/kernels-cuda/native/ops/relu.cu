// y = max(x, 0)
#include "../elementwise.cuh"

namespace ds {
namespace {

struct Forward {
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = x < 0 ? 0 : x; }
};
struct Backward {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float&) const { dx = x > 0 ? dy : 0; }
};

}  // namespace

KERNEL(relu, kFloats) {
  if (const char* error = check_alike(c, "relu", 1, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    map(c.stream, c.out[0].numel, Forward{}, c.in[0].as<const T>(), kNone, c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

KERNEL(relu_backward, kFloats) {
  if (const char* error = check_alike(c, "relu_backward", 2, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    map(c.stream, c.out[0].numel, Backward{}, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

}  // namespace ds
