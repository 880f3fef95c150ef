// Rotary position embedding (Su et al., "RoFormer", 2021), half-split as Llama does it: x [B, T, heads x D], pairs
// (i, i + R/2) of the first R elements of each of the first `rotated` heads turn by sign * angle(position + t, i); the rest is copied.
// cos, sin [T', R/2], T' >= position + T. Where positions i32 [B, T] are given, they stand in for t.
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

template <class T>
static void rotate_head(const T* x, const float* cos, const float* sin, int64_t half, float sign, T* y) {
  for (int64_t i = 0; i < half; i += VL) {
    const int64_t lanes = half - i < VL ? half - i : VL;
    vf a = load(x + i, lanes), b = load(x + half + i, lanes);
    vf co = load(cos + i, lanes), si = load(sin + i, lanes) * sign;
    store(y + i, fmadd(a, co, -(b * si)), lanes);
    store(y + half + i, fmadd(b, co, a * si), lanes);
  }
}

template <class T> static void rope(const Call& c, int64_t rotated, int64_t d, int64_t turning, float sign, int64_t position) {
  const View &x = c.in[0], &y = c.out[0];
  const float *cos = c.in[1].as<float>(), *sin = c.in[2].as<float>();
  const int64_t row = x.cols(), length = x.dims[1], half = turning / 2;
  const int32_t* places = c.n_in > 3 ? c.in[3].as<const int32_t>() : nullptr;
  parallel(x.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const T* from = x.as<T>() + r * row;
      T* to = y.as<T>() + r * row;
      const int64_t at = ((places ? places[r] : r % length) + position) * half;
      for (int64_t h = 0; h < rotated; h++) {
        rotate_head(from + h * d, cos + at, sin + at, half, sign, to + h * d);
        if (turning < d && from != to) memcpy(to + h * d + turning, from + h * d + turning, (size_t)(d - turning) * sizeof(T));
      }
      if (from != to) memcpy(to + rotated * d, from + rotated * d, (size_t)(row - rotated * d) * sizeof(T));
    }
  });
}

KERNEL(rope, kFloats) {
  const int64_t rotated = (int64_t)c.attrs[0], d = (int64_t)c.attrs[1], position = (int64_t)c.attrs[3];
  const int64_t turning = (int64_t)c.attrs[4];
  const float sign = (float)c.attrs[2];
  const View &x = c.in[0], &cos = c.in[1];
  if (turning % 2 != 0 || turning > d || rotated * d > x.cols())
    return error_text("rope: %lld elements of %lld heads of %lld in rows of %lld", (long long)turning, (long long)rotated, (long long)d,
                      (long long)x.cols());
  if (position + x.dims[1] > cos.dims[0])
    return error_text("rope: position %lld, the table ends at %lld", (long long)(position + x.dims[1] - 1), (long long)cos.dims[0]);
  if (c.n_in > 3) {
    const View& places = c.in[3];
    if (places.dtype != I32 || places.numel != x.rows()) return error_text("rope: positions must be i32, one for each of %lld rows", (long long)x.rows());
    for (int64_t r = 0; r < x.rows(); r++) {
      const int64_t place = places.as<const int32_t>()[r] + position;
      if (place < 0 || place >= cos.dims[0])
        return error_text("rope: position %lld of token %lld in row %lld is outside the table's 0..%lld", (long long)place,
                          (long long)(r % x.dims[1]), (long long)(r / x.dims[1]), (long long)(cos.dims[0] - 1));
    }
  }
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    rope<decltype(t)>(c, rotated, d, turning, sign, position);
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
