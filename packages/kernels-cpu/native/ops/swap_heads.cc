// Rows of groups x heads x D elements, written as heads x groups x D.
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(swap_heads, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  const int64_t groups = (int64_t)c.attrs[0], heads = (int64_t)c.attrs[1], row = x.cols();
  if (groups <= 0 || heads <= 0 || row % (groups * heads) != 0 || y.numel != x.numel || y.dtype != x.dtype || x.data == y.data)
    return error_text("swap_heads: %lld groups of %lld heads in rows of %lld, and y another tensor like x", (long long)groups,
                      (long long)heads, (long long)row);
  const int64_t size = row / (groups * heads);
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(x.rows(), row_grain(row), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; r++)
        for (int64_t h = 0; h < heads; h++)
          for (int64_t g = 0; g < groups; g++)
            memcpy(y.as<T>() + r * row + (h * groups + g) * size, x.as<T>() + r * row + (g * heads + h) * size, (size_t)size * sizeof(T));
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
