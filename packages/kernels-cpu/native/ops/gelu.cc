// GELU and its gradient; the function itself is in gelu.h.
#include "../gelu.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(gelu, kFloats) {
  if (const char* error = check_alike(c, "gelu", 1, 1)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const T* x = c.in[0].as<const T>();
    T* y = c.out[0].as<T>();
    if (c.attrs[0] != 0)
      map(c.out[0].numel, y, [](vf x) { return x * phi_tanh(x); }, x);
    else
      map(c.out[0].numel, y, [](vf x) { return x * phi_exact(x, bell(x)); }, x);
    return nullptr;
  });
}

KERNEL(gelu_backward, kFloats) {
  if (const char* error = check_alike(c, "gelu_backward", 2, 1)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const T *dy = c.in[0].as<const T>(), *x = c.in[1].as<const T>();
    T* dx = c.out[0].as<T>();
    if (c.attrs[0] != 0)
      map(c.out[0].numel, dx, [](vf dy, vf x) { return dy * slope_tanh(x); }, dy, x);
    else
      map(c.out[0].numel, dx, [](vf dy, vf x) { return dy * slope_exact(x); }, dy, x);
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
