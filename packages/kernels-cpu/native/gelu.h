// GELU (Hendrycks and Gimpel, 2016): y = x Phi(x), Phi the normal distribution function.
// tanh = 1 is the approximation of GPT-2 ("gelu_new"): Phi(x) ~ (1 + tanh u) / 2 = sigmoid(2u), u = k (x + a x^3),
// written with the sigmoid because it keeps its relative accuracy for very negative x where 1 + tanh cancels.
// tanh = 0 is the exact form, (1 + erf(x / sqrt 2)) / 2, which cancels there too; hence a fit of its tail.
#pragma once
#include "elementwise.h"

namespace ds {
namespace DS_ISA_NS {

static const float kTwoK = 1.5957691216057308f;      // 2 sqrt(2 / pi)
static const float kTwoKA = 0.07135481282553125f;    // 2 sqrt(2 / pi) * 0.044715
static const float kDensity = 0.3989422804014327f;   // 1 / sqrt(2 pi)

DS_INLINE vf phi_tanh(vf x) { return vsigmoid(x * fmadd(splat(kTwoKA), x * x, splat(kTwoK))); }

// e^(-x^2 / 2), and Phi from it: Phi(-|x|) = e^(-x^2 / 2) t P(t) with t = 1 / (1 + 0.21 |x|). P is our own minimax fit
// (Lawson-weighted least squares) to a relative error of 2e-8.
DS_INLINE vf bell(vf x) { return vexp(x * x * -0.5f); }
DS_INLINE vf phi_exact(vf x, vf bell) {
  vf t = 1.0f / fmadd(splat(0.21f), vabs(x), splat(1.0f));
  vf p = splat(-0.0712958f);
  p = fmadd(p, t, splat(0.28180945f));
  p = fmadd(p, t, splat(-0.32650349f));
  p = fmadd(p, t, splat(0.3449986f));
  p = fmadd(p, t, splat(-0.09078107f));
  p = fmadd(p, t, splat(0.12347584f));
  p = fmadd(p, t, splat(0.06956875f));
  p = fmadd(p, t, splat(0.08501259f));
  p = fmadd(p, t, splat(0.08371514f));
  vf tail = p * t * bell;
  return x < 0.0f ? tail : 1.0f - tail;
}

// d/dx x Phi(x) = Phi + x Phi'
DS_INLINE vf slope_tanh(vf x) {
  vf phi = phi_tanh(x), square = x * x;
  vf u = x * fmadd(splat(3 * kTwoKA), square, splat(kTwoK));  // x d(2u)/dx
  return fmadd(phi * (1.0f - phi), u, phi);
}
DS_INLINE vf slope_exact(vf x) {
  vf e = bell(x);
  return fmadd(x * kDensity, e, phi_exact(x, e));
}

}  // namespace DS_ISA_NS
}  // namespace ds
