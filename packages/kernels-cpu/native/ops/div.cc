// y = a / b
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(div, kFloats) {
  if (const char* error = check_alike(c, "div", 2, 1)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [](vf a, vf b) { return a / b; }, c.in[0].as<const T>(),
        c.in[1].as<const T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
