// y = cap tanh(x / cap)
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(softcap, kFloats) {
  if (const char* error = check_alike(c, "softcap", 1, 1)) return error;
  const float cap = (float)c.attrs[0], inverse = (float)(1 / c.attrs[0]);
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    map(c.out[0].numel, c.out[0].as<T>(), [=](vf x) { return vtanh(x * inverse) * cap; }, c.in[0].as<const T>());
    return nullptr;
  });
}

KERNEL(softcap_backward, kFloats) {
  if (const char* error = check_alike(c, "softcap_backward", 2, 1)) return error;
  const float inverse = (float)(1 / c.attrs[0]);
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const auto slope = [=](vf dy, vf x) {
      vf bent = vtanh(x * inverse);
      return dy * (1.0f - bent * bent);
    };
    map(c.out[0].numel, c.out[0].as<T>(), slope, c.in[0].as<const T>(), c.in[1].as<const T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
