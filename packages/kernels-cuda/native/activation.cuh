// exp, reciprocal, sigmoid and GELU in two grades: to f32's last bits for f32 storage, and by the fast units where the result is stored
// in 16 bits, whose rounding is a thousand times coarser.
#pragma once
#include "device.cuh"

namespace ds {

template <class T> constexpr bool kFastMath = sizeof(T) == 2;

constexpr float kLog2OfE = 1.4426950408889634f;

// One instruction each; beyond the range 0 and infinity, which is what exp and 1 / x are for here.
__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float inverse_of(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <bool Fast> __device__ __forceinline__ float exp_of(float x) {
  if constexpr (Fast) return exp2_of(x * kLog2OfE);
  return expf(x);
}
template <bool Fast> __device__ __forceinline__ float reciprocal(float x) {
  if constexpr (Fast) return inverse_of(x);
  return 1.0f / x;
}
template <bool Fast> __device__ __forceinline__ float sigmoid(float x) { return reciprocal<Fast>(1.0f + exp_of<Fast>(-x)); }

// ---- GELU (Hendrycks and Gimpel, 2016): x Phi(x), Phi the normal distribution function ----------------------------------------
// Tanh is the approximation of GPT-2 ("gelu_new"): Phi(x) ~ (1 + tanh u) / 2 = sigmoid(2u), u = k (x + a x^3), written with the
// sigmoid because it keeps its relative accuracy for very negative x where 1 + tanh cancels. The exact form,
// (1 + erf(x / sqrt 2)) / 2, cancels there too; hence the CPU kernels' fit of its tail.
constexpr float kGeluTwoK = 1.5957691216057308f;     // 2 sqrt(2 / pi)
constexpr float kGeluTwoKA = 0.07135481282553125f;   // 2 sqrt(2 / pi) * 0.044715
constexpr float kGeluDensity = 0.3989422804014327f;  // 1 / sqrt(2 pi)

// Phi(x) and d/dx x Phi(x) = Phi + x Phi'
struct GeluValue {
  float phi, slope;
};

template <bool Fast> __device__ __forceinline__ GeluValue gelu_by_tanh(float x) {
  const float square = x * x;
  float phi;
  if constexpr (Fast) phi = inverse_of(1.0f + exp2_of(x * fmaf(-kGeluTwoKA * kLog2OfE, square, -kGeluTwoK * kLog2OfE)));
  else phi = sigmoid<false>(x * fmaf(kGeluTwoKA, square, kGeluTwoK));
  const float u = x * fmaf(3 * kGeluTwoKA, square, kGeluTwoK);  // x d(2u)/dx
  return {phi, fmaf(phi * (1.0f - phi), u, phi)};
}

// Phi(-|x|) = e^(-x^2 / 2) t P(t) with t = 1 / (1 + 0.21 |x|); P is a minimax fit to a relative error of 2e-8.
template <bool Fast> __device__ __forceinline__ GeluValue gelu_exactly(float x) {
  const float bell = exp_of<Fast>(x * x * -0.5f), t = reciprocal<Fast>(fmaf(0.21f, fabsf(x), 1.0f));
  float p = -0.0712958f;
  p = fmaf(p, t, 0.28180945f);
  p = fmaf(p, t, -0.32650349f);
  p = fmaf(p, t, 0.3449986f);
  p = fmaf(p, t, -0.09078107f);
  p = fmaf(p, t, 0.12347584f);
  p = fmaf(p, t, 0.06956875f);
  p = fmaf(p, t, 0.08501259f);
  p = fmaf(p, t, 0.08371514f);
  const float tail = p * t * bell, phi = x < 0.0f ? tail : 1.0f - tail;
  return {phi, fmaf(x * kGeluDensity, bell, phi)};
}

template <bool Tanh, bool Fast> __device__ __forceinline__ GeluValue gelu_value(float x) {
  if constexpr (Tanh) return gelu_by_tanh<Fast>(x);
  return gelu_exactly<Fast>(x);
}

}  // namespace ds
