// GEGLU: GELU gates, exactly or by tanh.
#include "../gated.h"
#include "../gelu.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(geglu, kFloats) {
  if (c.attrs[0] != 0) return gated("geglu", c, [](vf g) { return g * phi_tanh(g); });
  return gated("geglu", c, [](vf g) { return g * phi_exact(g, bell(g)); });
}

KERNEL(geglu_backward, kFloats) {
  if (c.attrs[0] != 0)
    return gated_backward("geglu_backward", c, [](vf g, vf& value, vf& slope) { value = g * phi_tanh(g), slope = slope_tanh(g); });
  return gated_backward("geglu_backward", c, [](vf g, vf& value, vf& slope) { value = g * phi_exact(g, bell(g)), slope = slope_exact(g); });
}

}  // namespace DS_ISA_NS
}  // namespace ds
