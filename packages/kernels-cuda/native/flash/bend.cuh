// What soft caps (Gemma 2, 2024) and ALiBi (Press et al., 2022) make of scores.
#pragma once
#include "flash/shape.h"

namespace ds {
namespace flash {

// Slopes are 2^(-8 (h + 1) / n) for n heads, n a power of two; beyond the largest one in `heads` every other slope of twice as many.
__device__ __forceinline__ float alibi_slope(int head, int heads) {
  const int n = 1 << (31 - __clz(heads));
  return exp2f(head < n ? -8.0f * float(head + 1) / float(n) : -4.0f * float(2 * (head - n) + 1) / float(n));
}

// 1 - 2 / (1 + e^2x) by the fast units: to some 1e-7 of 1, which is what tensor cores' scores want.
__device__ __forceinline__ float tanh_fast(float x) {
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(2 * kLog2E * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1 + power));
  return fmaf(-2.0f, inverse, 1.0f);
}

// The scores of one head, in units of log2 e.
template <bool fast> struct Bend {
  float cap, inverse, fall;  // cap 0: none
  __device__ __forceinline__ Bend(const Shape& s, int head) {
    cap = s.softcap * kLog2E, inverse = s.softcap > 0 ? 1 / cap : 0;
    fall = s.alibi != 0 ? alibi_slope(head, s.heads) * kLog2E : 0;
  }
  // `slope` gets the derivative by the score as it was.
  __device__ __forceinline__ float operator()(float score, int i, int j, float& slope) const {
    slope = 1;
    if (cap > 0) {
      const float part = fast ? tanh_fast(score * inverse) : tanhf(score * inverse);
      score = cap * part, slope = fmaf(-part, part, 1.0f);
    }
    return fmaf(fall, float(j - i), score);
  }
};

}  // namespace flash
}  // namespace ds
