// Softmax along the last axis: y = e^(x - max) / sum. A NaN or +inf in a row, or a row of -inf, makes the row NaN.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(softmax, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  const int64_t C = x.cols();
  if (y.numel != x.numel || y.dtype != x.dtype) return error_text("softmax: y must be like x");
  // The exponentials of a worker's row in f32, so that 16-bit results are rounded once.
  float* rows = static_cast<float*>(scratch(-1, 0, (size_t)(pool_threads() * C + 1) * sizeof(float)));
  if (rows == nullptr) return kNoWorkspace;
  const float lowest = -__builtin_inff();
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(x.rows(), row_grain(C), [&](int64_t begin, int64_t end, int worker) {
      float* e = rows + worker * C;
      for (int64_t row = begin; row < end; row++) {
        const T* in = x.as<const T>() + row * C;
        vf top[kParts], sum[kParts] = {};
        for (int part = 0; part < kParts; part++) top[part] = splat(lowest);
        for_parts(C, [&](int part, int64_t i, auto n) {
          top[part] = vmax(top[part], keep(load(in + i, n), n, lowest));
        });
        const float max = max_parts(top);
        for_parts(C, [&](int part, int64_t i, auto n) {
          vf v = keep(vexp(load(in + i, n) - max), n);
          sum[part] += v;
          store(e + i, v, n);
        });
        const float inverse = 1.0f / sum_parts(sum);
        T* out = y.as<T>() + row * C;
        for_vectors(0, C, [&](int64_t i, auto n) { store(out + i, load(e + i, n) * inverse, n); });
      }
    });
    return nullptr;
  });
}

// dx = y (dy - sum(dy y))
KERNEL(softmax_backward, kFloats) {
  if (const char* error = check_alike(c, "softmax_backward", 2, 1)) return error;
  const View &dy = c.in[0], &y = c.in[1], &dx = c.out[0];
  const int64_t C = y.cols();
  return by_float(y.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(y.rows(), row_grain(C), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const T *grad = dy.as<const T>() + row * C, *p = y.as<const T>() + row * C;
        vf sum[kParts] = {};
        for_parts(C, [&](int part, int64_t i, auto n) {
          sum[part] = fused(load(grad + i, n), load(p + i, n), sum[part]);
        });
        const float dot = sum_parts(sum);
        T* out = dx.as<T>() + row * C;
        for_vectors(0, C, [&](int64_t i, auto n) { store(out + i, load(p + i, n) * (load(grad + i, n) - dot), n); });
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
