// Elementwise kernels: y[i] = f(x[i], ...) over a flat range in one pass of 16-byte accesses, several of them in flight. An output
// may be one of the inputs. What an element becomes doesn't depend on its place in the range.
#pragma once
#include <algorithm>
#include <type_traits>

#include "device.cuh"

namespace ds {

// ---- vectors of N elements (at most 16 bytes a Pack) kept as they are stored, so that a thread can hold many ------------
template <int N, class T> __device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, class T> __device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}
template <int N, class T> __device__ __forceinline__ void unpack(const Pack<T, N>& pack, float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = to_float(pack.v[i]);
}
__device__ __forceinline__ __nv_bfloat162 two_of(bf16, float a, float b) { return __floats2bfloat162_rn(a, b); }
__device__ __forceinline__ __half2 two_of(f16, float a, float b) { return __floats2half2_rn(a, b); }
template <class T, int N> __device__ __forceinline__ Pack<T, N> packed(const float (&x)[N]) {
  Pack<T, N> pack;
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {  // one instruction rounds two
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const auto two = two_of(T(), x[i], x[i + 1]);
      pack.v[i] = two.x, pack.v[i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) pack.v[i] = from_float<T>(x[i]);
  }
  return pack;
}

// N elements of a table that no kernel writes meanwhile, in accesses of at most 16 bytes; aligned to those.
template <int N, class T> __device__ __forceinline__ void load_table(const T* from, float (&x)[N]) {
  constexpr int kPart = N * int(sizeof(T)) > 16 ? kVector<T> : N;
#pragma unroll
  for (int at = 0; at < N; at += kPart) {
    Pack<T, kPart> pack;
    if constexpr (kPart * sizeof(T) == 16) {
      const uint4 bits = __ldg(reinterpret_cast<const uint4*>(from + at));
      pack = *reinterpret_cast<const Pack<T, kPart>*>(&bits);
    } else {
      pack = load_pack<kPart>(from + at);
    }
#pragma unroll
    for (int i = 0; i < kPart; i++) x[at + i] = to_float(pack.v[i]);
  }
}

// ---- f over a flat range ---------------------------------------------------------------------------------------
// Stands for an operand that there is not.
struct None {};

constexpr int kMapThreads = 256;
// Vectors of a thread, all loaded before the first is used. One keeps the most warps resident, and is best where every access is of
// 16 bytes; kernels that widen or narrow have smaller ones and take more of them.
template <int N, class... T> constexpr int kMapVectors = ((std::is_same_v<T, None> || sizeof(T) * N == 16) && ...) ? 1 : 4;

// f(a, b, y, z): a and b from x0 and x1, results to y0 and y1.
template <int N, class F, class X0, class X1, class Y0, class Y1>
__global__ void __launch_bounds__(kMapThreads) map_kernel(int64_t n, F f, const X0* x0, const X1* x1, Y0* y0, Y1* y1) {
  constexpr bool kTwoIn = !std::is_same_v<X1, None>, kTwoOut = !std::is_same_v<Y1, None>;
  constexpr int kVectors = kMapVectors<N, X0, X1, Y0, Y1>;
  const int64_t vectors = n / N, first = int64_t(blockIdx.x) * (kMapThreads * kVectors) + threadIdx.x;
  Pack<X0, N> a[kVectors];
  Pack<X1, N> b[kVectors];
#pragma unroll
  for (int u = 0; u < kVectors; u++) {
    const int64_t i = first + u * kMapThreads;
    if (i >= vectors) break;
    a[u] = load_pack<N>(x0 + i * N);
    if constexpr (kTwoIn) b[u] = load_pack<N>(x1 + i * N);
  }
#pragma unroll
  for (int u = 0; u < kVectors; u++) {
    const int64_t i = first + u * kMapThreads;
    if (i >= vectors) break;
    float p[N], q[N], y[N], z[N];
    unpack(a[u], p);
    if constexpr (kTwoIn) unpack(b[u], q);
#pragma unroll
    for (int k = 0; k < N; k++) {
      if constexpr (!kTwoIn) q[k] = 0;
      f(p[k], q[k], y[k], z[k]);
    }
    store_pack(y0 + i * N, packed<Y0>(y));
    if constexpr (kTwoOut) store_pack(y1 + i * N, packed<Y1>(z));
  }
  const int64_t rest = vectors * N + threadIdx.x;  // fewer than N elements are left
  if (blockIdx.x == gridDim.x - 1 && rest < n) {
    float q = 0, y, z;
    if constexpr (kTwoIn) q = to_float(x1[rest]);
    f(to_float(x0[rest]), q, y, z);
    y0[rest] = from_float<Y0>(y);
    if constexpr (kTwoOut) y1[rest] = from_float<Y1>(z);
  }
}

template <class F, class X0, class X1, class Y0, class Y1>
static void map(cudaStream_t stream, int64_t n, const F& f, const X0* x0, const X1* x1, Y0* y0, Y1* y1) {
  if (n == 0) return;
  constexpr int N = int(16 / std::max({sizeof(X0), sizeof(X1), sizeof(Y0), sizeof(Y1)}));
  const bool aligned = is_aligned(x0, N * sizeof(X0)) && is_aligned(x1, N * sizeof(X1)) && is_aligned(y0, N * sizeof(Y0)) &&
                       is_aligned(y1, N * sizeof(Y1));
  const auto blocks = [&](int64_t vectors, int in_thread) {
    const int64_t tile = int64_t(kMapThreads) * in_thread;
    return unsigned(std::max<int64_t>(1, (vectors + tile - 1) / tile));
  };
  if (aligned)
    map_kernel<N><<<blocks(n / N, kMapVectors<N, X0, X1, Y0, Y1>), kMapThreads, 0, stream>>>(n, f, x0, x1, y0, y1);
  else
    map_kernel<1><<<blocks(n, kMapVectors<1, X0, X1, Y0, Y1>), kMapThreads, 0, stream>>>(n, f, x0, x1, y0, y1);
}

constexpr None* kNone = nullptr;

// Error text unless the call has so many inputs and outputs, all of the first input's dtype and length; core's shape rules make
// sure of it, a caller of the raw kernels may not.
static inline const char* check_alike(const Call& c, const char* op, int inputs, int outputs) {
  if (c.n_in != inputs || c.n_out != outputs)
    return error_text("%s: expected %d inputs and %d outputs, got %d and %d", op, inputs, outputs, c.n_in, c.n_out);
  for (int i = 0; i < inputs + outputs; i++) {
    const View& v = i < inputs ? c.in[i] : c.out[i - inputs];
    if (v.dtype != c.in[0].dtype || v.numel != c.in[0].numel)
      return error_text("%s: expected all tensors to be like input 0 (dtype code %d, %lld elements), got dtype code %d, %lld elements in %s %d",
                        op, c.in[0].dtype, (long long)c.in[0].numel, v.dtype, (long long)v.numel,
                        i < inputs ? "input" : "output", i < inputs ? i : i - inputs);
  }
  return nullptr;
}

}  // namespace ds
