// Loops over vectors with the tail folded in, and reductions whose order is the same at every instruction set.
#pragma once
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

static constexpr const char* kNoWorkspace = "out of memory for a kernel's workspace";

// Rows per task when every row costs the same: about 64 KB of f32.
DS_INLINE int64_t row_grain(int64_t columns) { return 1 + 16384 / (columns + 1); }

// How many lanes of a vector are alive: All (a constant the compiler drops) or a count. One generic lambda
// `[&](int64_t i, auto n)` then serves body and tail, and the tail runs the body's own instructions.
struct All {};
template <class T> DS_INLINE vf load(const T* p, All) { return load(p); }
template <class T> DS_INLINE void store(T* p, vf v, All) { store(p, v); }

// Lanes at and beyond n become `other`, the neutral value of a reduction.
DS_INLINE vf keep(vf v, All, float = 0) { return v; }
DS_INLINE vf keep(vf v, int64_t n, float other = 0) { return lane_index() < (int32_t)n ? v : splat(other); }

// body(i, n) for every vector of [begin, end).
template <class F> DS_INLINE void for_vectors(int64_t begin, int64_t end, const F& body) {
  int64_t i = begin;
  for (; i + VL <= end; i += VL) body(i, All{});
  if (i < end) body(i, end - i);
}

// A row reduction keeps 32 running values whatever the vector length, value j covering the elements j mod 32, and
// combines them as one binary tree (j with j + 16 first). So a row's sum has the same bits at every level.
constexpr int kLanes = 32, kParts = kLanes / VL;

// body(part, i, n) for every vector of [0, n); `part` says which of the kParts accumulators it belongs to.
template <class F> DS_INLINE void for_parts(int64_t n, const F& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int part = 0; part < kParts; part++) body(part, i + part * VL, All{});
  for (int part = 0; part < kParts; part++, i += VL)
    if (i + VL <= n)
      body(part, i, All{});
    else if (i < n)
      body(part, i, n - i);
}

DS_INLINE float sum_parts(const vf (&parts)[kParts]) {
  vf sum[kParts];
  for (int p = 0; p < kParts; p++) sum[p] = parts[p];
  for (int half = kParts / 2; half > 0; half /= 2)
    for (int p = 0; p < half; p++) sum[p] += sum[p + half];
  return hsum(sum[0]);
}

DS_INLINE float max_parts(const vf (&parts)[kParts]) {
  vf top = parts[0];
  for (int p = 1; p < kParts; p++) top = vmax(top, parts[p]);
  return hmax(top);
}

// a * b + c with one rounding at every level, for results that must not depend on the machine (optimizer, norms).
// fmadd() rounds twice where the hardware has no FMA; here SSE2 pays about 20 instructions for the exact value.
#if defined(__FMA__) || defined(__ARM_NEON)
DS_INLINE vf fused(vf a, vf b, vf c) { return fmadd(a, b, c); }
#else
typedef int64_t vl __attribute__((vector_size(VL * 4)));
// The product of two floats is exact in double. The sum is rounded to odd (its error decides the last bit), after
// which the final rounding to float can't be wrong by double rounding (Boldo and Melquiond, 2008).
DS_INLINE vd round_to_odd_sum(vd a, vd b) {
  vd sum = a + b, from_b = sum - a;
  vd error = (a - (sum - from_b)) + (b - from_b);
  vl inexact = (vl)(error < 0.0) | (vl)(error > 0.0);  // false for NaN: infinities and NaN pass unchanged
  vl even = ((vl)sum & 1) - 1;                         // all ones when the last bit is 0
  vl toward = ((vl)(error > 0.0) ^ (vl)(sum > 0.0)) | 1;  // +1 away from zero, -1 towards it
  return (vd)((vl)sum + (toward & inexact & even));
}
DS_INLINE vf fused(vf a, vf b, vf c) {
  vd low = round_to_odd_sum(low_double(a) * low_double(b), low_double(c));
  vd high = round_to_odd_sum(high_double(a) * high_double(b), high_double(c));
  vf r;
  for (int i = 0; i < VL / 2; i++) r[i] = (float)low[i], r[i + VL / 2] = (float)high[i];
  return r;
}
#endif

}  // namespace DS_ISA_NS
}  // namespace ds
