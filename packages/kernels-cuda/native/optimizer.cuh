// Optimizers: one pass over a flat range of f32 values that are updated in place (the master weights first, then the
// optimizer's states), with a gradient of any float dtype and, where training is in low precision, a copy of the master.
//
//   struct Plain { float minus_lr; __device__ void operator()(float g, float (&x)[1]) const { ... } };
//   KERNEL(sgd, kFloats) { return update<1>(c, "sgd", Plain{...}); }
//
// Inputs grad [n] and coefficient f32 [1], by which the gradient is multiplied first; a NaN coefficient leaves everything
// as it was. Every operation of a formula is one of the four below, each rounded once and never contracted, so that a slice
// of the range gets the bits of the whole, and those of the CPU.
#pragma once
#include "elementwise.cuh"

namespace ds {

__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float over(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float root(float a) { return __fsqrt_rn(a); }

// A scalar of the formula: computed in double, rounded once.
static inline float constant(double x) { return float(x); }

constexpr int kUpdateThreads = 256;

// ---- accesses that nothing reads again soon: past the L2 cache's working set -------------------------------
template <int Bytes> struct Word;
template <> struct Word<16> { using type = uint4; };
template <> struct Word<8> { using type = uint2; };
template <> struct Word<4> { using type = unsigned; };
template <> struct Word<2> { using type = unsigned short; };

template <int V, class T> __device__ __forceinline__ Pack<T, V> load_once(const T* from) {
  using W = typename Word<sizeof(T) * V>::type;
  const W word = __ldcs(reinterpret_cast<const W*>(from));
  return reinterpret_cast<const Pack<T, V>&>(word);
}
template <int V, class T> __device__ __forceinline__ void store_once(T* to, const Pack<T, V>& pack) {
  using W = typename Word<sizeof(T) * V>::type;
  __stcs(reinterpret_cast<W*>(to), reinterpret_cast<const W&>(pack));
}

// Where an optimizer's arrays lie; `low` is nullptr without a copy.
template <int S, class G, class L> struct Range {
  const G* grad;
  float* arrays[S];
  L* low;
};

// `U` packs of `V` elements, kUpdateThreads * V apart, from `at` on: all loads first, so that they are in flight together.
template <int V, int U, int S, class G, class L, class F>
__device__ __forceinline__ void update_packs(const Range<S, G, L>& r, int64_t at, float coefficient, const F& f) {
  constexpr int64_t kStep = int64_t(kUpdateThreads) * V;
  Pack<G, V> grad[U];
  Pack<float, V> x[U][S];
#pragma unroll
  for (int u = 0; u < U; u++) {
    grad[u] = load_once<V>(r.grad + at + u * kStep);
#pragma unroll
    for (int s = 0; s < S; s++) x[u][s] = load_once<V>(r.arrays[s] + at + u * kStep);
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    float low[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
      float values[S];
#pragma unroll
      for (int s = 0; s < S; s++) values[s] = x[u][s].v[i];
      f(times(to_float(grad[u].v[i]), coefficient), values);
#pragma unroll
      for (int s = 0; s < S; s++) x[u][s].v[i] = values[s];
      low[i] = values[0];
    }
#pragma unroll
    for (int s = 0; s < S; s++) store_once<V>(r.arrays[s] + at + u * kStep, x[u][s]);
    if (r.low != nullptr) store_once<V>(r.low + at + u * kStep, packed<L>(low));
  }
}

// A block updates kUpdateThreads * V * U elements; the last block's are taken one by one where a pack would cross the end.
template <int V, int U, int S, class G, class L, class F>
__global__ void __launch_bounds__(kUpdateThreads) update_kernel(Range<S, G, L> r, const float* coefficients, int64_t n, F f) {
  const float coefficient = *coefficients;
  if (coefficient != coefficient) return;
  constexpr int64_t kTile = int64_t(kUpdateThreads) * V * U;
  const int64_t tile = blockIdx.x * kTile, at = tile + int64_t(threadIdx.x) * V;
  if (tile + kTile <= n) return update_packs<V, U>(r, at, coefficient, f);
  for (int64_t i = tile + threadIdx.x; i < n; i += kUpdateThreads) update_packs<1, 1>(r, i, coefficient, f);
}

template <int S, class G, class L, class F>
static void launch_update(const Call& c, Range<S, G, L> r, const F& f) {
  const int64_t n = c.in[0].numel;
  const float* coefficient = c.in[1].as<const float>();
  bool aligned = is_aligned(r.grad, 4 * sizeof(G)) && is_aligned(r.low, 4 * sizeof(L));
  for (float* array : r.arrays) aligned = aligned && is_aligned(array, 16);
  // Of each array at once: 4 to 6 accesses in flight for a thread. With three states one is best: 4.16 to 4.19 TB/s on an H200, where
  // two reach 4.05.
  constexpr int kPacks = S <= 2 ? 2 : 1;
  const int64_t tile = int64_t(kUpdateThreads) * 4 * kPacks;
  const unsigned blocks = unsigned((n + tile - 1) / tile);
  if (aligned) update_kernel<4, kPacks><<<blocks, kUpdateThreads, 0, c.stream>>>(r, coefficient, n, f);
  else update_kernel<1, kPacks * 4><<<blocks, kUpdateThreads, 0, c.stream>>>(r, coefficient, n, f);
}

// The whole of an optimizer's kernel: checks, then one pass. S outputs are updated in place; one more is the copy.
template <int S, class F> static const char* update(const Call& c, const char* op, const F& f) {
  const View& grad = c.in[0];
  const bool has_low = c.n_out > S;
  if (c.n_in != 2 || c.n_out < S || c.n_out > S + 1)
    return error_text("%s: expected 2 inputs and %d or %d outputs, got %d and %d", op, S, S + 1, c.n_in, c.n_out);
  for (int i = 0; i < c.n_out; i++) {
    if (c.out[i].numel != grad.numel)
      return error_text("%s: expected outputs as long as the gradient, %lld elements, got %lld in output %d", op,
                        (long long)grad.numel, (long long)c.out[i].numel, i);
    if (i < S && c.out[i].dtype != F32)
      return error_text("%s: expected f32 master weights and states, got dtype code %d in output %d", op, c.out[i].dtype, i);
  }
  if (has_low && c.out[S].dtype != BF16 && c.out[S].dtype != F16)
    return error_text("%s: expected a bf16 or f16 copy of the master weights, got dtype code %d", op, c.out[S].dtype);
  if (c.in[1].dtype != F32) return error_text("%s: expected an f32 coefficient, got dtype code %d", op, c.in[1].dtype);
  if (grad.numel == 0) return nullptr;
  by_float(grad.dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    auto run = [&](auto* low) {
      Range<S, G, std::remove_pointer_t<decltype(low)>> r = {grad.as<const G>(), {}, low};
      for (int s = 0; s < S; s++) r.arrays[s] = c.out[s].as<float>();
      launch_update(c, r, f);
    };
    if (has_low && c.out[S].dtype == F16) return run(c.out[S].as<f16>());
    run(has_low ? c.out[S].as<bf16>() : static_cast<bf16*>(nullptr));
  });
  return nullptr;
}

}  // namespace ds
