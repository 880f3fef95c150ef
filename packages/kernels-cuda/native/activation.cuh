// exp, reciprocal and sigmoid in two grades: to f32's last bits for f32 storage, and by the fast units where the result is stored
// in 16 bits, whose rounding is a thousand times coarser.
#pragma once
#include "device.cuh"

namespace ds {

template <class T> constexpr bool kFastMath = sizeof(T) == 2;

template <bool Fast> __device__ __forceinline__ float exp_of(float x) {
  if constexpr (Fast) return __expf(x);
  return expf(x);
}
template <bool Fast> __device__ __forceinline__ float reciprocal(float x) {
  if constexpr (Fast) return __fdividef(1.0f, x);  // 0 beyond 2^126
  return 1.0f / x;
}
template <bool Fast> __device__ __forceinline__ float sigmoid(float x) { return reciprocal<Fast>(1.0f + exp_of<Fast>(-x)); }

}  // namespace ds
