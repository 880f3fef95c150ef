// y = max(x, 0)
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(relu, kFloats) {
  if (const char* error = check_alike(c, "relu", 1, 1)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [](vf x) { return vmax(vf{}, x); }, c.in[0].as<const T>());
    return nullptr;
  });
}

KERNEL(relu_backward, kFloats) {
  if (const char* error = check_alike(c, "relu_backward", 2, 1)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [](vf dy, vf x) { return x > 0.0f ? dy : vf{}; }, c.in[0].as<const T>(), c.in[1].as<const T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
