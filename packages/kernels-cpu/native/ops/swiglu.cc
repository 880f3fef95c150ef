// SwiGLU: silu(g) = g sigmoid(g) gates.
#include "../gated.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(swiglu, kFloats) {
  return gated("swiglu", c, [](vf g) { return g * vsigmoid(g); });
}

KERNEL(swiglu_backward, kFloats) {
  return gated_backward("swiglu_backward", c, [](vf g, vf& value, vf& slope) {
    vf s = vsigmoid(g);
    value = g * s;
    slope = fmadd(value, 1.0f - s, s);  // silu' = s + g s (1 - s)
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
