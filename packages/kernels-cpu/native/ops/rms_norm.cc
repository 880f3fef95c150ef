// RMSNorm (Zhang and Sennrich, 2019) with the residual addition fused in:
//   h = x + residual (rounded to its storage type), y = h rstd (w + offset), rstd = 1 / sqrt(mean(h^2) + eps)
// x, residual, h, y [rows, C]; w [C]; stats f32 [rows, 1] = rstd.
#include "../norm.h"

namespace ds {
namespace DS_ISA_NS {

template <class T> DS_INLINE float mean_square(const T* h, int64_t C) {
  vf sum[kParts] = {};
  for_parts(C, [&](int part, int64_t i, auto n) {
    vf v = load(h + i, n);
    sum[part] = fused(v, v, sum[part]);
  });
  return sum_parts(sum) / (float)C;
}

KERNEL(rms_norm, kFloats) {
  const View &x = c.in[0], &w = c.in[1], &y = c.out[0], &stats = c.out[1];
  const int64_t C = x.cols(), rows = x.rows();
  const bool has_residual = c.n_in > 2;
  if (w.numel != C)
    return error_text("rms_norm: w has %lld elements, expected %lld", (long long)w.numel, (long long)C);
  if (has_residual && (c.n_out < 3 || c.in[2].numel != x.numel || c.in[2].dtype != x.dtype))
    return error_text("rms_norm: residual must be like x, and needs a third output h");
  const float* weight = widened(w, 0, (float)c.attrs[1]);
  if (weight == nullptr) return kNoWorkspace;
  const float eps = (float)c.attrs[0];
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(rows, row_grain(C), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const T* h = x.as<const T>() + row * C;
        if (has_residual) {
          const T *from = h, *residual = c.in[2].as<const T>() + row * C;
          T* sum = c.out[2].as<T>() + row * C;
          for_vectors(0, C, [&](int64_t i, auto n) { store(sum + i, load(from + i, n) + load(residual + i, n), n); });
          h = sum;
        }
        float rstd = 1.0f / __builtin_sqrtf(mean_square(h, C) + eps);
        T* out = y.as<T>() + row * C;
        for_vectors(0, C, [&](int64_t i, auto n) { store(out + i, load(h + i, n) * rstd * load(weight + i, n), n); });
        stats.as<float>()[row] = rstd;
      }
    });
    return nullptr;
  });
}

// With g = dy (w + offset) and xhat = h rstd: dx = rstd (g - xhat mean(g xhat)) (+ dh), dw = sum over rows of dy xhat.
KERNEL(rms_norm_backward, kFloats) {
  const View &dy = c.in[0], &h = c.in[1], &w = c.in[2], &stats = c.in[3], &dx = c.out[0];
  const int64_t C = h.cols(), rows = h.rows();
  const bool has_dh = c.n_in > 4;
  if (dy.numel != h.numel || dy.dtype != h.dtype || dx.numel != h.numel || dx.dtype != h.dtype || w.numel != C ||
      stats.numel != rows || (has_dh && (c.in[4].numel != h.numel || c.in[4].dtype != h.dtype)))
    return error_text("rms_norm_backward: dy, dh and dx must be like h [%lld, %lld], w [%lld], stats [%lld, 1]",
                      (long long)rows, (long long)C, (long long)C, (long long)rows);
  const RowChunks chunks = row_chunks(rows);
  const float* weight = widened(w, 0, (float)c.attrs[1]);
  float* partial = static_cast<float*>(scratch(-1, 1, (size_t)(chunks.count * C + 1) * sizeof(float)));
  if (weight == nullptr || partial == nullptr) return kNoWorkspace;
  by_float(h.dtype, [&](auto t) {
    using T = decltype(t);
    parallel(chunks.count, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t chunk = first; chunk < last; chunk++) {
        float* dw = partial + chunk * C;
        memset(dw, 0, (size_t)C * sizeof(float));
        int64_t end = (chunk + 1) * chunks.size;
        for (int64_t row = chunk * chunks.size; row < (end < rows ? end : rows); row++) {
          const T *grad = dy.as<const T>() + row * C, *in = h.as<const T>() + row * C;
          const float rstd = stats.as<const float>()[row];
          vf sum_gx[kParts] = {};
          for_parts(C, [&](int part, int64_t i, auto n) {
            vf d = load(grad + i, n), xhat = load(in + i, n) * rstd;
            sum_gx[part] = fused(d * load(weight + i, n), xhat, sum_gx[part]);
            store(dw + i, fused(d, xhat, load(dw + i, n)), n);
          });
          const float mean_gx = sum_parts(sum_gx) / (float)C;
          T* out = dx.as<T>() + row * C;
          const T* through = has_dh ? c.in[4].as<const T>() + row * C : nullptr;
          for_vectors(0, C, [&](int64_t i, auto n) {
            vf xhat = load(in + i, n) * rstd, g = load(grad + i, n) * load(weight + i, n);
            vf r = fused(xhat, splat(-mean_gx), g);
            store(out + i, through ? fused(r, splat(rstd), load(through + i, n)) : r * rstd, n);
          });
        }
      }
    });
  });
  add_chunks(c.out[1], partial, C, chunks.count, c.attrs[0] != 0);
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
