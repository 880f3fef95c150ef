// acc = alpha x + acc, one rounding in f32 and one to acc's dtype. x and acc may differ in dtype: bf16 gradients are
// summed over micro-batches in f32.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(accumulate, kFloats) {
  const View &x = c.in[0], &acc = c.out[0];
  if (x.numel != acc.numel)
    return error_text("accumulate: x has %lld elements, acc %lld", (long long)x.numel, (long long)acc.numel);
  const vf alpha = splat((float)c.attrs[0]);
  return by_float(x.dtype, [&](auto tx) {
    return by_float(acc.dtype, [&](auto ta) -> const char* {
      using X = decltype(tx);
      using A = decltype(ta);
      map(x.numel, acc.as<A>(), [=](vf x, vf a) { return fused(alpha, x, a); }, x.as<const X>(), acc.as<const A>());
      return nullptr;
    });
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
