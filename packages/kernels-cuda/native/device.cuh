// What kernels share on the device: storage types and their conversion to f32, 16-byte vectors, reductions over a warp and a
// block, and the choice of a template by dtype. Arithmetic is f32; storage may be narrower.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernel.h"

namespace ds {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <class T> struct Tag { using type = T; };

// f(Tag<T>{}) with the storage type of a float dtype: by_float(view.dtype, [&](auto t) { using T = typename decltype(t)::type; ... }).
template <class F> static inline void by_float(int dtype, const F& f) {
  switch (dtype) {
    case F32: return f(Tag<float>{});
    case BF16: return f(Tag<bf16>{});
    case F16: return f(Tag<f16>{});
  }
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(x); }

// What a 16-byte access of T holds.
template <class T> constexpr int kVector = int(16 / sizeof(T));

template <class T, int N> struct alignas(sizeof(T) * N) Pack { T v[N]; };

// N consecutive elements, aligned to their size (N * sizeof(T) of 4, 8 or 16 bytes make one access).
template <int N, class T> __device__ __forceinline__ void load(const T* from, float (&x)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = to_float(pack.v[i]);
}
template <int N, class T> __device__ __forceinline__ void store(T* to, const float (&x)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack.v[i] = from_float<T>(x[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

static inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// ---- reductions: every lane (thread) gets the result; the order of additions is fixed -----------------------
struct Sum {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
template <class Op, class T> __device__ __forceinline__ T warp_reduce(T x, Op op) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = op(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}
// `room` is shared memory for 32 values of T. All threads of the block (a multiple of 32) call it; it may be called again at once.
template <class Op, class T> __device__ __forceinline__ T block_reduce(T x, T identity, T* room, Op op) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_reduce(x, op);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = lane < warps ? room[lane] : identity;
  return warp_reduce(x, op);
}

// Blocks for `n` items at `per_block` each, at most `waves` per multiprocessor: kernels then stride over the rest.
static inline unsigned grid_for(int64_t n, int64_t per_block, int waves = 16) {
  const int64_t blocks = (n + per_block - 1) / per_block, most = int64_t(device_properties().multiprocessors) * waves;
  return unsigned(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

}  // namespace ds
