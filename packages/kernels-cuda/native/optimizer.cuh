// Optimizers: one pass over a flat range of values that are updated in place (the master weights first, then the optimizer's
// states; each kept in f32 or, rounded to nearest, in bf16), with a gradient of any float dtype and, where training is in low
// precision over f32 master weights, a copy of these. Formulas are in f32.
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

// Where an optimizer's arrays lie: states[1] and on; `low` is nullptr without a copy.
template <int S, class G, class P, class T, class L> struct Range {
  const G* grad;
  P* master;
  T* states[S];
  L* low;
};

// `U` packs of `V` elements, kUpdateThreads * V apart, from `at` on: all loads first, so that they are in flight together.
template <int V, int U, int S, class G, class P, class T, class L, class F>
__device__ __forceinline__ void update_packs(const Range<S, G, P, T, L>& r, int64_t at, float coefficient, const F& f) {
  constexpr int64_t kStep = int64_t(kUpdateThreads) * V;
  Pack<G, V> grad[U];
  Pack<P, V> master[U];
  Pack<T, V> states[U][S];
#pragma unroll
  for (int u = 0; u < U; u++) {
    grad[u] = load_once<V>(r.grad + at + u * kStep);
    master[u] = load_once<V>(r.master + at + u * kStep);
#pragma unroll
    for (int s = 1; s < S; s++) states[u][s] = load_once<V>(r.states[s] + at + u * kStep);
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    float x[S][V];
#pragma unroll
    for (int i = 0; i < V; i++) {
      float values[S];
      values[0] = to_float(master[u].v[i]);
#pragma unroll
      for (int s = 1; s < S; s++) values[s] = to_float(states[u][s].v[i]);
      f(times(to_float(grad[u].v[i]), coefficient), values);
#pragma unroll
      for (int s = 0; s < S; s++) x[s][i] = values[s];
    }
    store_once<V>(r.master + at + u * kStep, packed<P>(x[0]));
#pragma unroll
    for (int s = 1; s < S; s++) store_once<V>(r.states[s] + at + u * kStep, packed<T>(x[s]));
    if (r.low != nullptr) store_once<V>(r.low + at + u * kStep, packed<L>(x[0]));
  }
}

// A block updates kUpdateThreads * V * U elements; the last block's are taken one by one where a pack would cross the end.
template <int V, int U, int S, class G, class P, class T, class L, class F>
__global__ void __launch_bounds__(kUpdateThreads)
    update_kernel(Range<S, G, P, T, L> r, const float* coefficients, int64_t n, F f) {
  const float coefficient = *coefficients;
  if (coefficient != coefficient) return;
  constexpr int64_t kTile = int64_t(kUpdateThreads) * V * U;
  const int64_t tile = blockIdx.x * kTile, at = tile + int64_t(threadIdx.x) * V;
  if (tile + kTile <= n) return update_packs<V, U>(r, at, coefficient, f);
  for (int64_t i = tile + threadIdx.x; i < n; i += kUpdateThreads) update_packs<1, 1>(r, i, coefficient, f);
}

template <int S, class G, class P, class T, class L, class F>
static void launch_update(const Call& c, Range<S, G, P, T, L> r, const F& f) {
  const int64_t n = c.in[0].numel;
  const float* coefficient = c.in[1].as<const float>();
  bool aligned = is_aligned(r.grad, 4 * sizeof(G)) && is_aligned(r.master, 4 * sizeof(P)) && is_aligned(r.low, 4 * sizeof(L));
  for (int s = 1; s < S; s++) aligned = aligned && is_aligned(r.states[s], 4 * sizeof(T));
  // Of each array at once: 4 to 6 accesses in flight for a thread. With three states one is best: 4.16 to 4.19 TB/s on an H200, where
  // two reach 4.05.
  constexpr int kPacks = S <= 2 ? 2 : 1;
  const int64_t tile = int64_t(kUpdateThreads) * 4 * kPacks;
  const unsigned blocks = unsigned((n + tile - 1) / tile);
  if (aligned) update_kernel<4, kPacks><<<blocks, kUpdateThreads, 0, c.stream>>>(r, coefficient, n, f);
  else update_kernel<1, kPacks * 4><<<blocks, kUpdateThreads, 0, c.stream>>>(r, coefficient, n, f);
}

// body(Tag<T>{}) with the dtype that master weights or states are kept in.
template <class F> static inline void by_kept(int dtype, const F& body) {
  if (dtype == BF16) return body(Tag<bf16>{});
  body(Tag<float>{});
}

// The checks of update().
static inline const char* check_update(const Call& c, const char* op, int arrays) {
  const View& grad = c.in[0];
  if (c.n_in != 2 || c.n_out < arrays || c.n_out > arrays + 1)
    return error_text("%s: expected 2 inputs and %d or %d outputs, got %d and %d", op, arrays, arrays + 1, c.n_in, c.n_out);
  for (int i = 0; i < c.n_out; i++) {
    const int32_t dtype = c.out[i].dtype;
    if (c.out[i].numel != grad.numel)
      return error_text("%s: expected outputs as long as the gradient, %lld elements, got %lld in output %d", op,
                        (long long)grad.numel, (long long)c.out[i].numel, i);
    if (i < arrays && dtype != F32 && dtype != BF16)
      return error_text("%s: expected f32 or bf16 master weights and states, got dtype code %d in output %d", op, dtype, i);
    if (i > 1 && i < arrays && dtype != c.out[1].dtype)
      return error_text("%s: expected states of one dtype, got codes %d and %d", op, c.out[1].dtype, dtype);
  }
  if (c.in[1].dtype != F32) return error_text("%s: expected an f32 coefficient, got dtype code %d", op, c.in[1].dtype);
  if (c.n_out == arrays) return nullptr;
  const int32_t low = c.out[arrays].dtype;
  if (low != BF16 && low != F16)
    return error_text("%s: expected a bf16 or f16 copy of the master weights, got dtype code %d", op, low);
  if (c.out[0].dtype != F32) return error_text("%s: expected no copy of master weights that are bf16 themselves", op);
  return nullptr;
}

// The whole of an optimizer's kernel: checks, then one pass. S outputs are updated in place; one more is the copy.
template <int S, class F> static const char* update(const Call& c, const char* op, const F& f) {
  if (const char* error = check_update(c, op, S)) return error;
  const View& grad = c.in[0];
  if (grad.numel == 0) return nullptr;
  by_float(grad.dtype, [&](auto tg) {
    using G = typename decltype(tg)::type;
    auto with_states = [&](auto tt) {
      using T = typename decltype(tt)::type;
      auto run = [&](auto* master, auto* low) {
        Range<S, G, std::remove_pointer_t<decltype(master)>, T, std::remove_pointer_t<decltype(low)>> r = {
            grad.as<const G>(), master, {}, low};
        for (int s = 1; s < S; s++) r.states[s] = c.out[s].as<T>();
        launch_update(c, r, f);
      };
      if (c.out[0].dtype == BF16) return run(c.out[0].as<bf16>(), static_cast<bf16*>(nullptr));
      float* master = c.out[0].as<float>();
      if (c.n_out > S && c.out[S].dtype == F16) return run(master, c.out[S].as<f16>());
      run(master, c.n_out > S ? c.out[S].as<bf16>() : static_cast<bf16*>(nullptr));
    };
    if constexpr (S == 1) with_states(Tag<float>{});
    else by_kept(c.out[1].dtype, with_states);
  });
  return nullptr;
}

}  // namespace ds
