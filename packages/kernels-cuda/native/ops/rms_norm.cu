// RMSNorm (Zhang and Sennrich, 2019) with the residual addition fused in; see norm.cuh and norm_backward.cuh.
#include "../norm_backward.cuh"

namespace ds {

KERNEL(rms_norm, kFloats) {
  const View &x = c.in[0], &w = c.in[1];
  const int64_t C = x.cols();
  const View* residual = c.n_in > 2 ? &c.in[2] : nullptr;
  if (w.numel != C) return error_text("rms_norm: w has %lld elements, expected %lld", (long long)w.numel, (long long)C);
  if (residual != nullptr && (c.n_out < 3 || residual->numel != x.numel || residual->dtype != x.dtype))
    return error_text("rms_norm: residual must be like x, and needs a third output h");
  return run_norm<false>(c, residual);
}

KERNEL(rms_norm_backward, kFloats) {
  const View &dy = c.in[0], &h = c.in[1], &w = c.in[2], &stats = c.in[3], &dx = c.out[0];
  const int64_t C = h.cols(), rows = h.rows();
  const bool has_dh = c.n_in > 4;
  if (dy.numel != h.numel || dy.dtype != h.dtype || dx.numel != h.numel || dx.dtype != h.dtype || w.numel != C ||
      stats.numel != rows || (has_dh && (c.in[4].numel != h.numel || c.in[4].dtype != h.dtype)))
    return error_text("rms_norm_backward: dy, dh and dx must be like h [%lld, %lld], w [%lld], stats [%lld, 1]", (long long)rows,
                      (long long)C, (long long)C, (long long)rows);
  return run_norm_backward<false>(c);
}

}  // namespace ds
