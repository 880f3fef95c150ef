// Optimizers: one pass over a flat range of f32 values that are updated in place (the master weights first, then the
// optimizer's states), with a gradient of any float dtype and, where training is in low precision, a copy of the master.
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
template <int S, class G, class L, class F>
static void update_range(int64_t n, const G* grad, vf coefficient, float* const (&arrays)[S], L* low, const F& f) {
  auto step = [&](int64_t i, auto lanes) {
    vf x[S];
    for (int s = 0; s < S; s++) x[s] = load(arrays[s] + i, lanes);
    f(load(grad + i, lanes) * coefficient, x);
    for (int s = 0; s < S; s++) store(arrays[s] + i, x[s], lanes);
    store_copy(at(low, i), x[0], lanes);
  };
  // Plain stores: the lines were just read, so they are in the cache already, and streaming them past it measured 10 % slower.
  parallel(n, kGrain, [&](int64_t begin, int64_t end, int) { for_vectors(begin, end, step); });
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
  const float coefficient = *c.in[1].as<const float>();
  if (coefficient != coefficient) return nullptr;
  float* arrays[S];
  for (int s = 0; s < S; s++) arrays[s] = c.out[s].as<float>();
  by_float(grad.dtype, [&](auto tg) {
    auto run = [&](auto* low) { update_range(grad.numel, grad.as<const decltype(tg)>(), splat(coefficient), arrays, low, f); };
    if (!has_low) return run((NoCopy*)nullptr);
    if (c.out[S].dtype == BF16) return run(c.out[S].as<bf16>());
    run(c.out[S].as<f16>());
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
