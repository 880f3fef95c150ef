// The global gradient norm from sums of squares, and the factor that gradients are multiplied by before the update:
//   norm = sqrt(sum of partials) * scale            scale undoes loss scaling and averages over ranks
//   coefficient = scale, times maxNorm / (norm + 1e-6) when the norm exceeds maxNorm > 0; NaN when it isn't finite,
//   which adamw takes as "skip this step".
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(grad_norm, dtype_bit(F32)) {
  const float* partials = c.in[0].as<const float>();
  const double max_norm = c.attrs[0], scale = c.attrs[1];
  double sum = 0;
  for (int64_t i = 0; i < c.in[0].numel; i++) sum += partials[i];
  const double norm = __builtin_sqrt(sum) * scale;
  double coefficient = scale;
  if (!(norm - norm == 0))  // infinite or NaN
    coefficient = __builtin_nan("");
  else if (max_norm > 0 && norm + 1e-6 > max_norm)
    coefficient = scale * max_norm / (norm + 1e-6);
  *c.out[0].as<float>() = (float)norm;
  *c.out[1].as<float>() = (float)coefficient;
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
