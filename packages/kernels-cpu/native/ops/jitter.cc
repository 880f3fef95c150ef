// y = x (1 + p (2u - 1)), u by Philox at the element's flat index, so backward is the same op on dy.
#include "../elementwise.h"
#include "../philox.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(jitter, kFloats) {
  if (const char* error = check_alike(c, "jitter", 1, 1)) return error;
  const double p = c.attrs[0];
  const PhiloxKey key = {(uint32_t)c.attrs[1], (uint32_t)c.attrs[2], (uint32_t)c.attrs[3], (uint32_t)c.attrs[4]};
  const vf least = splat((float)(1 - p)), slope = splat((float)(2 * p * 0x1p-24));
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const T* x = c.in[0].as<const T>();
    T* y = c.out[0].as<T>();
    static_assert(kGrain % kPhiloxElements == 0, "a task starts at the first element of a Philox block");
    parallel(c.out[0].numel, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t at = begin; at < end; at += kPhiloxElements) {
        vu word[2];
        philox(key, (uint64_t)at / 4, word);
        for (int half = 0; half < 2; half++) {
          const int64_t i = at + half * VL, left = end - i;
          if (left <= 0) break;
          const vf factor = fmadd(__builtin_convertvector((vi)(word[half] >> 8), vf), slope, least);
          const auto shake = [&](auto n) { store(y + i, load(x + i, n) * factor, n); };
          left >= VL ? shake(All{}) : shake(left);
        }
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
