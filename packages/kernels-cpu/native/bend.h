// What becomes of the scores of attention before the softmax: a soft cap, and a bias by distance. Scores are in units of log2 e.
#pragma once
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

struct Bend {
  double softcap;  // scores s are softcap tanh(s / softcap); 0: as they are
  bool alibi;      // they gain slope(head) (key - query)
  bool bent() const { return softcap > 0 || alibi; }
};

// 2^(-8 (head + 1) / n) for n heads, n a power of two; beyond the largest one in `heads` every other slope of twice as many heads.
static double alibi_slope(int64_t head, int64_t heads) {
  int64_t n = 1;
  while (2 * n <= heads) n *= 2;
  return __builtin_exp2(head < n ? -8.0 * (double)(head + 1) / (double)n : -4.0 * (double)(2 * (head - n) + 1) / (double)n);
}

// Scores of row i and keys [j0, j0 + n), capped and biased by distance; `slopes`, unless null, gets their derivatives.
static void bend(const Bend& a, double slope, int64_t i, int64_t j0, int64_t n, float* s, float* slopes) {
  const float cap = (float)(a.softcap * kLog2E), inverse = a.softcap > 0 ? 1 / cap : 0, fall = a.alibi ? (float)(slope * kLog2E) : 0;
  for (int64_t j = 0; j < n; j += VL) {
    const int64_t lanes = n - j < VL ? n - j : VL;
    vf score = load(s + j, lanes);
    if (a.softcap > 0) {
      const vf part = vtanh(score * inverse);
      score = part * cap;
      if (slopes) store(slopes + j, 1.0f - part * part, lanes);
    }
    if (a.alibi) score = fmadd(to_float(lane_index() + splat_i((int32_t)(j0 + j - i))), splat(fall), score);
    store(s + j, score, lanes);
  }
}

}  // namespace DS_ISA_NS
}  // namespace ds
