// y = x / (sqrt(squares) + eps): x with a norm of one, given the sum of its squares.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(normalize, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.numel != y.numel || x.dtype != y.dtype)
    return error_text("normalize: expected y to be like x (dtype code %d, %lld elements), got dtype code %d, %lld elements", x.dtype,
                      (long long)x.numel, y.dtype, (long long)y.numel);
  const vf norm = splat(__builtin_sqrtf(*c.in[1].as<const float>()) + (float)c.attrs[0]);
  by_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    map(x.numel, y.as<T>(), [=](vf v) { return v / norm; }, x.as<const T>());
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
