// Optimizers: one pass over a flat range of values that are updated in place (the master weights first, then the optimizer's
// states; each kept in f32 or, rounded to nearest, in bf16), with a gradient of any float dtype and, where training is in low
// precision over f32 master weights, a copy of these. Formulas are in f32.
//
//   KERNEL(sgd, kFloats) { ... return update<2>(c, "sgd", [=](vf g, vf (&x)[2]) { x[1] = ...; x[0] = fused(...); }); }
//
// Inputs grad [n] and coefficient f32 [1], by which the gradient is multiplied first; a NaN coefficient leaves everything
// as it was. Every element goes through the same instructions wherever it stands, so that ZeRO's slices of the range give
// the bits of the whole; with fused() those are the same on every machine.
#pragma once
#include "elementwise.h"

namespace ds {
namespace DS_ISA_NS {

struct NoCopy {};
DS_INLINE void store_copy(NoCopy*, vf, All) {}
DS_INLINE void store_copy(NoCopy*, vf, int64_t) {}
template <class L, class N> DS_INLINE void store_copy(L* low, vf p, N n) { store(low, p, n); }
DS_INLINE NoCopy* at(NoCopy*, int64_t) { return nullptr; }
template <class L> DS_INLINE L* at(L* low, int64_t i) { return low + i; }

// A scalar of the formula: computed in double, rounded once.
DS_INLINE vf constant(double x) { return splat((float)x); }

// f(g, x): x[0] the master weights, x[1] and on the states, of one vector.
template <int S, class G, class P, class T, class L, class F>
static void update_range(int64_t n, const G* grad, vf coefficient, P* master, T* const (&states)[S], L* low, const F& f) {
  auto step = [&](int64_t i, auto lanes) {
    vf x[S];
    x[0] = load(master + i, lanes);
    for (int s = 1; s < S; s++) x[s] = load(states[s] + i, lanes);
    f(load(grad + i, lanes) * coefficient, x);
    store(master + i, x[0], lanes);
    for (int s = 1; s < S; s++) store(states[s] + i, x[s], lanes);
    store_copy(at(low, i), x[0], lanes);
  };
  // Plain stores: the lines were just read, so they are in the cache already, and streaming them past it measured 10 % slower.
  parallel(n, kGrain, [&](int64_t begin, int64_t end, int) { for_vectors(begin, end, step); });
}

// body(P{}) with the dtype that master weights or states are kept in.
template <class F> DS_INLINE void by_kept(int32_t dtype, const F& body) {
  if (dtype == BF16) return body(bf16{});
  body(float{});
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
  const float coefficient = *c.in[1].as<const float>();
  if (coefficient != coefficient) return nullptr;
  by_float(grad.dtype, [&](auto tg) {
    auto with_states = [&](auto tt) {
      using T = decltype(tt);
      T* states[S] = {};
      for (int s = 1; s < S; s++) states[s] = c.out[s].as<T>();
      auto run = [&](auto* master, auto* low) {
        update_range(grad.numel, grad.as<const decltype(tg)>(), splat(coefficient), master, states, low, f);
      };
      if (c.out[0].dtype == BF16) return run(c.out[0].as<bf16>(), (NoCopy*)nullptr);
      float* master = c.out[0].as<float>();
      if (c.n_out == S) return run(master, (NoCopy*)nullptr);
      if (c.out[S].dtype == BF16) return run(master, c.out[S].as<bf16>());
      run(master, c.out[S].as<f16>());
    };
    if constexpr (S == 1) with_states(float{});
    else by_kept(c.out[1].dtype, with_states);
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
