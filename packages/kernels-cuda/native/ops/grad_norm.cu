// The global gradient norm from sums of squares, and the factor that gradients are multiplied by before the update:
//   norm = sqrt(sum of partials) * scale            scale undoes loss scaling and averages over ranks
//   coefficient = scale, times maxNorm / (norm + 1e-6) when the norm exceeds maxNorm > 0; NaN when it isn't finite,
//   which optimizers take as "skip this step".
#include "device.cuh"

namespace ds {
namespace {

// One thread: there are a few partials, and their order is fixed.
__global__ void grad_norm_kernel(const float* partials, int64_t n, double max_norm, double scale, float* out_norm,
                                 float* out_coefficient) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum = __dadd_rn(sum, double(partials[i]));
  const double norm = __dmul_rn(__dsqrt_rn(sum), scale);
  const double limited = __dadd_rn(norm, 1e-6);
  double coefficient = scale;
  if (!isfinite(norm)) coefficient = __longlong_as_double(0x7ff8000000000000ll);
  else if (max_norm > 0 && limited > max_norm) coefficient = __ddiv_rn(__dmul_rn(scale, max_norm), limited);
  *out_norm = float(norm);
  *out_coefficient = float(coefficient);
}

}  // namespace

KERNEL(grad_norm, dtype_bit(F32)) {
  grad_norm_kernel<<<1, 1, 0, c.stream>>>(c.in[0].as<const float>(), c.in[0].numel, c.attrs[0], c.attrs[1],
                                          c.out[0].as<float>(), c.out[1].as<float>());
  return nullptr;
}

}  // namespace ds
