// y = a / b
#include "../elementwise.cuh"

namespace ds {
namespace {

struct Combine {
  __device__ __forceinline__ void operator()(float a, float b, float& y, float&) const { y = a / b; }
};

}  // namespace

KERNEL(div, kFloats) {
  if (const char* error = check_alike(c, "div", 2, 1)) return error;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    map(c.stream, c.out[0].numel, Combine{}, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

}  // namespace ds
