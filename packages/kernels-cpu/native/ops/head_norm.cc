// RMS norm of every query and key head of packed qkv [rows, (heads + 2 kv_heads) D]; value heads are copied. wq, wk [D]; stats f32
// [rows, heads + kv_heads] = rstd = 1 / sqrt(mean(x^2) + eps); y = x rstd (w + offset).
#include "../norm.h"

namespace ds {
namespace DS_ISA_NS {

struct Heads {
  int64_t heads, normed, d, width;  // query heads; query and key heads; elements of a head, of a row
  const float *wq, *wk;  // with the offset
  const float* weight(int64_t head) const { return head < heads ? wq : wk; }
};

static const char* read_heads(const char* op, const Call& c, const View& qkv, const View& wq, const View& wk, Heads& s) {
  s.heads = (int64_t)c.attrs[0], s.d = (int64_t)c.attrs[2];
  s.normed = s.heads + (int64_t)c.attrs[1], s.width = qkv.cols();
  if (s.width != (s.normed + (int64_t)c.attrs[1]) * s.d || wq.numel != s.d || wk.numel != s.d)
    return error_text("%s: %lld query and %lld key/value heads of %lld in rows of %lld, weights of %lld and %lld", op, (long long)s.heads,
                      (long long)c.attrs[1], (long long)s.d, (long long)s.width, (long long)wq.numel, (long long)wk.numel);
  s.wq = widened(wq, 0, (float)c.attrs[4]), s.wk = widened(wk, 2, (float)c.attrs[4]);
  return s.wq == nullptr || s.wk == nullptr ? kNoWorkspace : nullptr;
}

KERNEL(head_norm, kFloats) {
  const View &x = c.in[0], &y = c.out[0], &stats = c.out[1];
  Heads s;
  if (const char* error = read_heads("head_norm", c, x, c.in[1], c.in[2], s)) return error;
  const float eps = (float)c.attrs[3];
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(x.rows(), row_grain(s.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const T* from = x.as<const T>() + row * s.width;
        T* to = y.as<T>() + row * s.width;
        for (int64_t head = 0; head < s.normed; head++) {
          const T* in = from + head * s.d;
          T* out = to + head * s.d;
          const float* w = s.weight(head);
          vf sum[kParts] = {};
          for_parts(s.d, [&](int part, int64_t i, auto n) {
            vf v = load(in + i, n);
            sum[part] = fused(v, v, sum[part]);
          });
          const float rstd = 1.0f / __builtin_sqrtf(sum_parts(sum) / (float)s.d + eps);
          for_vectors(0, s.d, [&](int64_t i, auto n) { store(out + i, load(in + i, n) * rstd * load(w + i, n), n); });
          stats.as<float>()[row * s.normed + head] = rstd;
        }
        if (from != to) memcpy(to + s.normed * s.d, from + s.normed * s.d, (size_t)(s.width - s.normed * s.d) * sizeof(T));
      }
    });
    return nullptr;
  });
}

// With g = dy (w + offset) and xhat = x rstd: dx = rstd (g - xhat mean(g xhat)), dw = sum over rows and heads of dy xhat.
KERNEL(head_norm_backward, kFloats) {
  const View &dy = c.in[0], &x = c.in[1], &stats = c.in[4], &dx = c.out[0];
  Heads s;
  if (const char* error = read_heads("head_norm_backward", c, x, c.in[2], c.in[3], s)) return error;
  const int64_t rows = x.rows();
  const RowChunks chunks = row_chunks(rows);
  // One line a chunk: dwq in the first D floats, dwk in the next.
  float* partial = static_cast<float*>(scratch(-1, 1, (size_t)(chunks.count * 2 * s.d + 1) * sizeof(float)));
  if (partial == nullptr) return kNoWorkspace;
  by_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    parallel(chunks.count, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t chunk = first; chunk < last; chunk++) {
        float* lines = partial + chunk * 2 * s.d;
        memset(lines, 0, (size_t)(2 * s.d) * sizeof(float));
        const int64_t end = (chunk + 1) * chunks.size;
        for (int64_t row = chunk * chunks.size; row < (end < rows ? end : rows); row++) {
          const T *grads = dy.as<const T>() + row * s.width, *from = x.as<const T>() + row * s.width;
          T* to = dx.as<T>() + row * s.width;
          for (int64_t head = 0; head < s.normed; head++) {
            const T *grad = grads + head * s.d, *in = from + head * s.d;
            T* out = to + head * s.d;
            const float *w = s.weight(head), rstd = stats.as<const float>()[row * s.normed + head];
            float* dw = lines + (head < s.heads ? 0 : s.d);
            vf sum[kParts] = {};
            for_parts(s.d, [&](int part, int64_t i, auto n) {
              vf d = load(grad + i, n), xhat = load(in + i, n) * rstd;
              sum[part] = fused(d * load(w + i, n), keep(xhat, n), sum[part]);
              store(dw + i, fused(d, xhat, load(dw + i, n)), n);
            });
            const float mean = sum_parts(sum) / (float)s.d;
            for_vectors(0, s.d, [&](int64_t i, auto n) {
              vf xhat = load(in + i, n) * rstd, g = load(grad + i, n) * load(w + i, n);
              store(out + i, fused(xhat, splat(-mean), g) * rstd, n);
            });
          }
          if (grads != to) memcpy(to + s.normed * s.d, grads + s.normed * s.d, (size_t)(s.width - s.normed * s.d) * sizeof(T));
        }
      }
    });
  });
  add_chunks(c.out[1], partial, 2 * s.d, chunks.count, c.attrs[5] != 0);
  add_chunks(c.out[2], partial + s.d, 2 * s.d, chunks.count, c.attrs[6] != 0);
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
