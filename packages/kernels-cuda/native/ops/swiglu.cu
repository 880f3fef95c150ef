// SwiGLU: silu(g) = g sigmoid(g) gates; see gated.cuh.
#include "../gated.cuh"

namespace ds {
namespace {

struct Silu {
  template <bool Fast> static __device__ __forceinline__ GateValue at(float g) {
    const float s = sigmoid<Fast>(g), silu = g * s;
    return {silu, fmaf(silu, 1.0f - s, s)};  // silu' = s + g s (1 - s)
  }
};

}  // namespace

KERNEL(swiglu, kFloats) { return run_gated<Silu>("swiglu", c); }

KERNEL(swiglu_backward, kFloats) { return run_gated_backward<Silu>("swiglu_backward", c, nullptr); }

KERNEL(swiglu_backward_recompute, kFloats) {
  if (c.n_out != 2) return error_text("swiglu_backward_recompute: expected 2 outputs, got %d", c.n_out);
  return run_gated_backward<Silu>("swiglu_backward_recompute", c, &c.out[1]);
}

}  // namespace ds
