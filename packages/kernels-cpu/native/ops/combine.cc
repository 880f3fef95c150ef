// y [N, C]: of each token the sum of its k rows of x [N k, C] at place[token k + j], in order of j, in f32 with one rounding.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(combine, kFloats) {
  const View &x = c.in[0], &place = c.in[1], &y = c.out[0];
  const int64_t k = (int64_t)c.attrs[0], C = y.cols();
  if (x.cols() != C || x.dtype != y.dtype || y.rows() * k != x.rows() || place.numel != x.rows())
    return error_text("combine: %lld rows and %lld places are not %lld for each of %lld tokens", (long long)x.rows(), (long long)place.numel,
                      (long long)k, (long long)y.rows());
  const int32_t* at = place.as<const int32_t>();
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(y.rows(), row_grain(C * k), [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; token++) {
        T* to = y.as<T>() + token * C;
        for_vectors(0, C, [&](int64_t i, auto n) {
          vf sum = load(x.as<const T>() + at[token * k] * C + i, n);
          for (int64_t j = 1; j < k; j++) sum += load(x.as<const T>() + at[token * k + j] * C + i, n);
          store(to + i, sum, n);
        });
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
