// y = alpha x + beta y, rounded once to y's dtype.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(blend, kFloats) {
  if (const char* error = check_alike(c, "blend", 1, 1)) return error;
  const vf alpha = splat((float)c.attrs[0]), beta = splat((float)c.attrs[1]);
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [=](vf x, vf y) { return fused(alpha, x, beta * y); }, c.in[0].as<const T>(),
        c.out[0].as<const T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
