// GEGLU: GELU gates, exactly or by tanh; see gated.cuh.
#include "../gated.cuh"

namespace ds {
namespace {

template <bool Tanh> struct Gelu {
  template <bool Fast> static __device__ __forceinline__ GateValue at(float g) {
    const GeluValue v = gelu_value<Tanh, Fast>(g);
    return {g * v.phi, v.slope};
  }
};

const char* run_backward(const char* op, const Call& c, const View* y) {
  return c.attrs[0] != 0 ? run_gated_backward<Gelu<true>>(op, c, y) : run_gated_backward<Gelu<false>>(op, c, y);
}

}  // namespace

KERNEL(geglu, kFloats) { return c.attrs[0] != 0 ? run_gated<Gelu<true>>("geglu", c) : run_gated<Gelu<false>>("geglu", c); }

KERNEL(geglu_backward, kFloats) { return run_backward("geglu_backward", c, nullptr); }

KERNEL(geglu_backward_recompute, kFloats) {
  if (c.n_out != 2) return error_text("geglu_backward_recompute: expected 2 outputs, got %d", c.n_out);
  return run_backward("geglu_backward_recompute", c, &c.out[1]);
}

}  // namespace ds
