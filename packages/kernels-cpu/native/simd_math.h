// exp, logarithm and sigmoid of vectors. Polynomials are our own minimax fits (Lawson-weighted least squares on
// Chebyshev nodes, in double), so that the fit's error stays under 0.3 ulp and the rounding of the evaluation decides:
// about 1 ulp for exp, 2 ulp for sigmoid.
// Included by simd.h.
#pragma once
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

// e^x. x > 88.73 gives infinity, x < -104 gives 0 (subnormal results are right), NaN stays.
DS_INLINE vf vexp(vf x) {
  // e^x = 2^n e^r with |r| <= ln2/2. The first part of ln2 has 9 trailing zero bits, so n * part is exact without FMA.
  vf bounded = vmax(splat(-104.0f), vmin(splat(89.0f), x));  // in this order a NaN x comes through
  vf n = vround(bounded * 1.44269504f);
  vf r = fmadd(n, splat(-0.693359375f), bounded);
  r = fmadd(n, splat(2.12194440e-4f), r);
  vf q = splat(0.0013814599f);
  q = fmadd(q, r, splat(0.008368717f));
  q = fmadd(q, r, splat(0.04166839f));
  q = fmadd(q, r, splat(0.16666521f));
  q = fmadd(q, r, splat(0.49999994f));
  vf p = fmadd(r * r, q, r) + 1.0f;
#if DS_ISA_LEVEL == 2
  return _mm512_maskz_scalef_ps(kAllLanes, p, n);
#else
  // Two factors, because 2^n alone leaves the float range at both ends.
  vi e = to_int(n), half = e >> 1;
  return p * as_float((half + 127) << 23) * as_float((e - half + 127) << 23);
#endif
}

// 2^x, for kernels that can take log2 e into a scale they apply anyway. Infinity from 128, 0 below -150, NaN stays.
DS_INLINE vf vexp2(vf x) {
  vf bounded = x > 129.0f ? splat(129.0f) : x;
  bounded = bounded < -151.0f ? splat(-151.0f) : bounded;
  vf n = vround(bounded), f = bounded - n;
  vf q = splat(0.00015353342f);
  q = fmadd(q, f, splat(0.0013398901f));
  q = fmadd(q, f, splat(0.009618438f));
  q = fmadd(q, f, splat(0.055503324f));
  q = fmadd(q, f, splat(0.24022648f));
  q = fmadd(q, f, splat(0.6931472f));
  vf p = fmadd(q, f, splat(1.0f));
#if DS_ISA_LEVEL == 2
  return _mm512_maskz_scalef_ps(kAllLanes, p, n);
#else
  vi e = to_int(n), half = e >> 1;
  return p * as_float((half + 127) << 23) * as_float((e - half + 127) << 23);
#endif
}

// log2 x for normal x > 0; infinity and NaN stay. About 1 ulp.
DS_INLINE vf vlog2(vf x) {
  // x = 2^e (1 + f) with 1 + f in [sqrt 1/2, sqrt 2): subtracting sqrt 1/2's bits carries into e exactly there.
  vi shifted = as_int(x) - 0x3f3504f3, e = shifted >> 23;
  vf f = as_float(as_int(x) - (e << 23)) - 1.0f;
  vf q = splat(-0.10996379f);
  q = fmadd(q, f, splat(0.18617533f));
  q = fmadd(q, f, splat(-0.19105576f));
  q = fmadd(q, f, splat(0.20459981f));
  q = fmadd(q, f, splat(-0.23961835f));
  q = fmadd(q, f, splat(0.2885675f));
  q = fmadd(q, f, splat(-0.3606966f));
  q = fmadd(q, f, splat(0.48089823f));
  q = fmadd(q, f, splat(-0.72134733f));
  // f log2 e in two parts, so that the leading one is exact enough next to e.
  vf low = fmadd(f * f, q, f * 1.925963e-8f);
  vf y = to_float(e) + fmadd(f, splat(1.44269502f), low);
  return x < __builtin_inff() ? y : x;
}

DS_INLINE vf vsigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }

// tanh to some units in the last place: near 0 x + x^3 P(x^2), P our own fit (weighted least squares, relative error 1e-8).
DS_INLINE vf vtanh(vf x) {
  vf z = x * x, magnitude = vabs(x);
  vf p = splat(-0.00543943f);
  p = fmadd(p, z, splat(0.02039795f));
  p = fmadd(p, z, splat(-0.05366505f));
  p = fmadd(p, z, splat(0.13330543f));
  p = fmadd(p, z, splat(-0.33333249f));
  vf far = copy_sign(1.0f - 2.0f / (vexp(magnitude + magnitude) + 1.0f), x);
  return magnitude < 0.65f ? fmadd(x * z, p, x) : far;
}

}  // namespace DS_ISA_NS
}  // namespace ds
