// y = keep ? x / (1 - p) : 0 (Srivastava et al., 2014), keep decided by Philox at the element's flat index, so backward
// is the same op on dy.
#include "../elementwise.h"
#include "../philox.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(dropout, kFloats) {
  if (const char* error = check_alike(c, "dropout", 1, 1)) return error;
  const double p = c.attrs[0];
  const PhiloxKey key = {(uint32_t)c.attrs[1], (uint32_t)c.attrs[2], (uint32_t)c.attrs[3], (uint32_t)c.attrs[4]};
  const vf kept = splat((float)(1 / (1 - p)));
  // u >= p with u = k 2^-24 is k >= p 2^24; k < 2^24, so the comparison may be signed.
  const vi threshold = splat_i((int32_t)__builtin_ceil((double)(float)p * 0x1p24));
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
          int64_t i = at + half * VL, left = end - i;
          if (left <= 0) break;
          vi keeps = (vi)(word[half] >> 8) >= threshold;
          auto drop = [&](auto n) { store(y + i, keeps ? load(x + i, n) * kept : vf{}, n); };
          left >= VL ? drop(All{}) : drop(left);
        }
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
