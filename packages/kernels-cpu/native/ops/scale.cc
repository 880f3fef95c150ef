// y = alpha x
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(scale, kFloats) {
  if (const char* error = check_alike(c, "scale", 1, 1)) return error;
  const vf alpha = splat((float)c.attrs[0]);
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [=](vf x) { return x * alpha; }, c.in[0].as<const T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
