// LayerNorm (Ba et al., 2016) with the residual addition fused in:
//   h = x + residual (rounded to its storage type), y = (h - mean) rstd w + b, rstd = 1 / sqrt(var + eps)
// x, residual, h, y [rows, C]; w, b [C]; stats f32 [rows, 2] = (mean, rstd). A row stays in the first-level cache
// between its passes, so memory sees it once; the variance is taken from h - mean, which doesn't cancel.
#include "../norm.h"

namespace ds {
namespace DS_ISA_NS {

template <class T> DS_INLINE float mean_of(const T* h, int64_t C) {
  vf sum[kParts] = {};
  for_parts(C, [&](int part, int64_t i, auto n) { sum[part] += load(h + i, n); });
  return sum_parts(sum) / (float)C;
}

template <class T> DS_INLINE float variance_of(const T* h, int64_t C, float mean) {
  vf sum[kParts] = {};
  for_parts(C, [&](int part, int64_t i, auto n) {
    vf d = keep(load(h + i, n) - mean, n);
    sum[part] = fused(d, d, sum[part]);
  });
  return sum_parts(sum) / (float)C;
}

KERNEL(layer_norm, kFloats) {
  const View &x = c.in[0], &w = c.in[1], &b = c.in[2], &y = c.out[0], &stats = c.out[1];
  const int64_t C = x.cols(), rows = x.rows();
  const bool has_residual = c.n_in > 3;
  if (w.numel != C || b.numel != C)
    return error_text("layer_norm: w has %lld and b %lld elements, expected %lld", (long long)w.numel,
                      (long long)b.numel, (long long)C);
  if (has_residual && (c.n_out < 3 || c.in[3].numel != x.numel || c.in[3].dtype != x.dtype))
    return error_text("layer_norm: residual must be like x, and needs a third output h");
  const float *weight = widened(w, 0), *bias = widened(b, 1);
  if (weight == nullptr || bias == nullptr) return kNoWorkspace;
  const float eps = (float)c.attrs[0];
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(rows, row_grain(C), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const T* h = x.as<const T>() + row * C;
        if (has_residual) {
          const T *from = h, *residual = c.in[3].as<const T>() + row * C;
          T* sum = c.out[2].as<T>() + row * C;
          for_vectors(0, C, [&](int64_t i, auto n) { store(sum + i, load(from + i, n) + load(residual + i, n), n); });
          h = sum;
        }
        float mean = mean_of(h, C);
        float rstd = 1.0f / __builtin_sqrtf(variance_of(h, C, mean) + eps);
        T* out = y.as<T>() + row * C;
        for_vectors(0, C, [&](int64_t i, auto n) {
          store(out + i, fused((load(h + i, n) - mean) * rstd, load(weight + i, n), load(bias + i, n)), n);
        });
        stats.as<float>()[row * 2] = mean;
        stats.as<float>()[row * 2 + 1] = rstd;
      }
    });
    return nullptr;
  });
}

// With g = dy w and xhat = (h - mean) rstd:
//   dx = rstd (g - mean(g) - xhat mean(g xhat)) (+ dh, the gradient that reached h by the residual path)
//   dw = sum over rows of dy xhat, db = sum over rows of dy
KERNEL(layer_norm_backward, kFloats) {
  const View &dy = c.in[0], &h = c.in[1], &w = c.in[2], &stats = c.in[3], &dx = c.out[0];
  const int64_t C = h.cols(), rows = h.rows();
  const bool has_dh = c.n_in > 4;
  if (dy.numel != h.numel || dy.dtype != h.dtype || dx.numel != h.numel || dx.dtype != h.dtype || w.numel != C ||
      stats.numel != rows * 2 || (has_dh && (c.in[4].numel != h.numel || c.in[4].dtype != h.dtype)))
    return error_text("layer_norm_backward: dy, dh and dx must be like h [%lld, %lld], w [%lld], stats [%lld, 2]",
                      (long long)rows, (long long)C, (long long)C, (long long)rows);
  const RowChunks chunks = row_chunks(rows);
  const float* weight = widened(w, 0);
  // One line a chunk: dw in the first C floats, db in the next.
  float* partial = static_cast<float*>(scratch(-1, 1, (size_t)(chunks.count * 2 * C + 1) * sizeof(float)));
  if (weight == nullptr || partial == nullptr) return kNoWorkspace;
  by_float(h.dtype, [&](auto t) {
    using T = decltype(t);
    parallel(chunks.count, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t chunk = first; chunk < last; chunk++) {
        float *dw = partial + chunk * 2 * C, *db = dw + C;
        memset(dw, 0, (size_t)(2 * C) * sizeof(float));
        int64_t end = (chunk + 1) * chunks.size;
        for (int64_t row = chunk * chunks.size; row < (end < rows ? end : rows); row++) {
          const T *grad = dy.as<const T>() + row * C, *in = h.as<const T>() + row * C;
          const float mean = stats.as<const float>()[row * 2], rstd = stats.as<const float>()[row * 2 + 1];
          vf sum_g[kParts] = {}, sum_gx[kParts] = {};
          for_parts(C, [&](int part, int64_t i, auto n) {
            vf d = load(grad + i, n), xhat = (load(in + i, n) - mean) * rstd, g = d * load(weight + i, n);
            sum_g[part] += g;
            sum_gx[part] = fused(g, keep(xhat, n), sum_gx[part]);
            store(dw + i, fused(d, xhat, load(dw + i, n)), n);
            store(db + i, load(db + i, n) + d, n);
          });
          const float mean_g = sum_parts(sum_g) / (float)C, mean_gx = sum_parts(sum_gx) / (float)C;
          T* out = dx.as<T>() + row * C;
          const T* through = has_dh ? c.in[4].as<const T>() + row * C : nullptr;
          for_vectors(0, C, [&](int64_t i, auto n) {
            vf xhat = (load(in + i, n) - mean) * rstd, g = load(grad + i, n) * load(weight + i, n);
            vf r = fused(xhat, splat(-mean_gx), g - mean_g);
            store(out + i, through ? fused(r, splat(rstd), load(through + i, n)) : r * rstd, n);
          });
        }
      }
    });
  });
  add_chunks(c.out[1], partial, 2 * C, chunks.count, c.attrs[0] != 0);
  add_chunks(c.out[2], partial + C, 2 * C, chunks.count, c.attrs[1] != 0);
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
