// loss = mean over labelled rows of (logsumexp(l) - l[label]), l = x w' [N, V], and its gradients. The backward makes the logits again.
#include "../head_products.cuh"

namespace ds {

// f32 sums of dw over chunks may take this much; above it they are made in dw's own dtype.
static constexpr int64_t kMostSums = int64_t(1200) << 20;

KERNEL(linear_cross_entropy, kFloats) {
  Head h;
  if (const char* error = read_head(c, 0, c.attrs[0], c.attrs[1], "linear_cross_entropy", h)) return error;
  float *loss = c.out[0].as<float>(), *lse = c.out[1].as<float>();
  Chunk chunk;
  float* losses = static_cast<float*>(scratch(kScratchB, size_t(h.n + 1) * sizeof(float)));
  if (!chunk_room(h, false, chunk) || !losses) return kNoWorkspace;
  for (int64_t i = 0; i < h.n; i += h.chunk_rows) {
    const int64_t m = smaller(h.chunk_rows, h.n - i);
    if (const char* error = make_logits(h, i, m, chunk.logits, c.stream)) return error;
    by_logits(h, [&](auto l, auto) {
      using L = typename decltype(l)::type;
      head_loss<L>
          <<<unsigned(m), kHeadThreads, 0, c.stream>>>(static_cast<L*>(chunk.logits), h.stride, int(h.v), i, h.labels, lse, losses);
    });
  }
  mean_loss<<<1, 1024, 0, c.stream>>>(losses, h.labels, h.n, loss, nullptr);
  return nullptr;
}

KERNEL(linear_cross_entropy_backward, kFloats) {
  Head h;
  if (const char* error = read_head(c, 1, c.attrs[0], c.attrs[2], "linear_cross_entropy_backward", h)) return error;
  const bool accumulate = c.attrs[1] != 0;
  const View& dx = c.out[0];
  const bool wanted = c.n_out > 1;  // there is no dw of a head that is frozen
  const View dw = wanted ? c.out[1] : View{};
  if (dx.dtype != h.dtype || (wanted && dw.dtype != h.dtype && dw.dtype != F32))
    return error_text("linear_cross_entropy_backward: dx must have x's dtype (code %d) and dw that or f32, got codes %d and %d", h.dtype,
                      dx.dtype, dw.dtype);
  if (h.n == 0 || h.c == 0) {
    if (wanted && !accumulate) cudaMemsetAsync(dw.data, 0, size_t(dw.bytes()), c.stream);
    return nullptr;
  }
  Chunk chunk;
  float* scale = static_cast<float*>(scratch(kScratchB, sizeof(float)));
  // Sums over several chunks stay in f32 until the last.
  const bool sums = wanted && dw.dtype != F32 && h.chunks() > 1 && dw.numel * 4 <= kMostSums;
  float* sum = sums ? static_cast<float*>(scratch(kScratchC, size_t(dw.numel) * 4)) : nullptr;
  if (!chunk_room(h, true, chunk) || !scale || (sums && !sum)) return kNoWorkspace;
  gradient_scale<<<1, 1024, 0, c.stream>>>(c.in[0].as<float>(), h.labels, h.n, scale);
  for (int64_t i = 0; i < h.n; i += h.chunk_rows) {
    const int64_t m = smaller(h.chunk_rows, h.n - i);
    if (const char* error = make_logits(h, i, m, chunk.logits, c.stream)) return error;
    by_logits(h, [&](auto l, auto t) {
      using L = typename decltype(l)::type;
      using T = typename decltype(t)::type;
      head_gradient<L, T><<<unsigned(m), kHeadThreads, 0, c.stream>>>(static_cast<L*>(chunk.logits), static_cast<T*>(chunk.gradient),
                                                                      h.stride, int(h.v), i, h.labels, c.in[4].as<float>(), scale, h.uncap());
    });
    if (const char* error = make_dx(h, i, m, chunk.gradient, dx, c.stream)) return error;
    if (!wanted) continue;
    const char* error = sums ? add_dw(h, i, m, chunk.gradient, sum, F32, i > 0, c.stream)
                             : add_dw(h, i, m, chunk.gradient, dw.data, DType(dw.dtype), i > 0 || accumulate, c.stream);
    if (error) return error;
  }
  if (!sums) return nullptr;
  by_float(dw.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    add_gradients(sum, dw.as<T>(), dw.numel, accumulate, nullptr, nullptr, c.stream);
  });
  return nullptr;
}

}  // namespace ds
