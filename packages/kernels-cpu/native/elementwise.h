// Elementwise kernels: y[i] = f(x0[i], x1[i], ...) over a flat range, in one pass, on all threads.
// y may be any of the inputs. An element's bits don't depend on its place in the range (see lanes.h).
#pragma once
#include "lanes.h"

namespace ds {
namespace DS_ISA_NS {

// Elements per task: 128 KB of f32, well above what handing out a task costs, below a core's L2.
constexpr int64_t kGrain = 32768;

template <class Y, class F, class... X>
static void map(int64_t n, Y* y, const F& f, const X*... x) {
  parallel(n, kGrain, [&](int64_t begin, int64_t end, int) {
    // Four vectors at a time: their chains of dependent instructions overlap (a third faster where f has an exp).
    int64_t i = begin;
    for (; i + 4 * VL <= end; i += 4 * VL) {
      vf r[4];
      for (int k = 0; k < 4; k++) r[k] = f(load(x + i + k * VL)...);
      for (int k = 0; k < 4; k++) store(y + i + k * VL, r[k]);
    }
    for_vectors(i, end, [&](int64_t i, auto lanes) { store(y + i, f(load(x + i, lanes)...), lanes); });
  });
}

// Error text unless all inputs and outputs share the first input's dtype and length; core's shape rules make sure of
// it, a caller of the raw kernels may not.
DS_INLINE const char* check_alike(const Call& c, const char* op, int inputs, int outputs) {
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

}  // namespace DS_ISA_NS
}  // namespace ds
