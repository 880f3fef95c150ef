// LayerNorm (Ba et al., 2016) with the residual addition fused in; see norm.cuh and norm_backward.cuh.
#include "../norm_backward.cuh"

namespace ds {

KERNEL(layer_norm, kFloats) {
  const View &x = c.in[0], &w = c.in[1], &b = c.in[2];
  const int64_t C = x.cols();
  const View* residual = c.n_in > 3 ? &c.in[3] : nullptr;
  if (w.numel != C || b.numel != C)
    return error_text("layer_norm: w has %lld and b %lld elements, expected %lld", (long long)w.numel, (long long)b.numel,
                      (long long)C);
  if (residual != nullptr && (c.n_out < 3 || residual->numel != x.numel || residual->dtype != x.dtype))
    return error_text("layer_norm: residual must be like x, and needs a third output h");
  return run_norm<true>(c, residual);
}

KERNEL(layer_norm_backward, kFloats) {
  const View &dy = c.in[0], &h = c.in[1], &w = c.in[2], &stats = c.in[3], &dx = c.out[0];
  const int64_t C = h.cols(), rows = h.rows();
  const bool has_dh = c.n_in > 4;
  if (dy.numel != h.numel || dy.dtype != h.dtype || dx.numel != h.numel || dx.dtype != h.dtype || w.numel != C ||
      stats.numel != rows * 2 || (has_dh && (c.in[4].numel != h.numel || c.in[4].dtype != h.dtype)))
    return error_text("layer_norm_backward: dy, dh and dx must be like h [%lld, %lld], w [%lld], stats [%lld, 2]", (long long)rows,
                      (long long)C, (long long)C, (long long)rows);
  return run_norm_backward<true>(c);
}

}  // namespace ds
