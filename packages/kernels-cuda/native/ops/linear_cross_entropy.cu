// loss = mean over labelled rows of (logsumexp(l) - l[label]), l = x w' [N, V], and its gradients. Logits exist for a chunk of rows at
// a time, in the dtype of x (their products are summed in f32), and the backward makes them again.
#include "../cross_entropy.cuh"
#include "../gemm.h"

namespace ds {
namespace {

// Logits at a time. A product wants a few thousand rows, so large vocabularies get up to kMostLogits.
constexpr int64_t kLogitBytes = int64_t(512) << 20, kMostLogits = int64_t(1100) << 20, kEnoughRows = 4096;
// f32 sums of dw over chunks may take this much; above it they are made in dw's own dtype.
constexpr int64_t kMostSums = int64_t(1200) << 20;

struct Head {
  const View *x, *w;
  Labels labels;
  int64_t n, c, v;
  int64_t stride;      // elements between rows of logits
  int64_t chunk_rows;
  DType dtype;
  int64_t chunks() const { return chunk_rows == 0 ? 0 : (n + chunk_rows - 1) / chunk_rows; }
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

const char* read_head(const Call& c, int first, double ignored, const char* op, Head& h) {
  const View &x = c.in[first], &w = c.in[first + 1], &labels = c.in[first + 2];
  h.x = &x, h.w = &w, h.n = x.rows(), h.c = x.cols(), h.v = w.dims[0], h.dtype = DType(x.dtype);
  if (w.cols() != h.c || labels.numel != h.n)
    return error_text("%s: x has %lld rows of %lld, w rows of %lld, and there are %lld labels", op, (long long)h.n, (long long)h.c,
                      (long long)w.cols(), (long long)labels.numel);
  if (labels.dtype != I32) return error_text("%s: labels must be i32, got dtype code %d", op, labels.dtype);
  if (w.dtype != x.dtype) return error_text("%s: x and w must have one dtype, got codes %d and %d", op, x.dtype, w.dtype);
  if (h.v < 1 || h.v >= (1 << 30)) return error_text("%s: %lld rows of w, expected 1 to 2^30", op, (long long)h.v);
  h.labels = {labels.as<int32_t>(), int32_t(ignored), fault_slot()};
  h.stride = round_up(h.v, 64);
  // Chunks of about equal size, of whole tiles of a product.
  const int64_t row_bytes = h.stride * kElementBytes[h.dtype];
  int64_t most = kLogitBytes / row_bytes;
  if (most < kEnoughRows) most = smaller(kEnoughRows, kMostLogits / row_bytes);
  most = most < 256 ? 256 : most / 256 * 256;
  const int64_t chunks = (h.n + most - 1) / most;
  h.chunk_rows = chunks <= 1 ? h.n : smaller(round_up((h.n + chunks - 1) / chunks, 256), most);
  return nullptr;
}

const void* row_of(const View& view, int64_t row, int64_t columns) {
  return view.as<char>() + row * columns * kElementBytes[view.dtype];
}
void* logits_room(const Head& h) { return scratch(kScratchA, size_t(h.chunk_rows * h.stride * kElementBytes[h.dtype] + 16)); }

// Logits of m rows from row i.
const char* make_logits(const Head& h, int64_t i, int64_t m, void* logits, cudaStream_t stream) {
  Gemm g = {};
  g.m = m, g.n = h.v, g.k = h.c;
  g.a = row_of(*h.x, i, h.c), g.lda = h.c;
  g.b = h.w->data, g.ldb = h.c, g.transpose_b = true;
  g.c = logits, g.ldc = h.stride;
  g.in_dtype = g.out_dtype = h.dtype;
  return gemm(g, stream);
}
// dx of m rows from row i = gradient w.
const char* make_dx(const Head& h, int64_t i, int64_t m, const void* gradient, const View& dx, cudaStream_t stream) {
  Gemm g = {};
  g.m = m, g.n = h.c, g.k = h.v;
  g.a = gradient, g.lda = h.stride;
  g.b = h.w->data, g.ldb = h.c;
  g.c = const_cast<void*>(row_of(dx, i, h.c)), g.ldc = h.c;
  g.in_dtype = g.out_dtype = h.dtype;
  return gemm(g, stream);
}
// dw (+)= gradient' x over those rows.
const char* add_dw(const Head& h, int64_t i, int64_t m, const void* gradient, void* dw, DType dtype, bool accumulate, cudaStream_t stream) {
  Gemm g = {};
  g.m = h.v, g.n = h.c, g.k = m;
  g.a = gradient, g.lda = h.stride, g.transpose_a = true;
  g.b = row_of(*h.x, i, h.c), g.ldb = h.c;
  g.c = dw, g.ldc = h.c;
  g.in_dtype = h.dtype, g.out_dtype = dtype;
  g.beta = accumulate ? 1 : 0;
  return gemm(g, stream);
}

}  // namespace

KERNEL(linear_cross_entropy, kFloats) {
  Head h;
  if (const char* error = read_head(c, 0, c.attrs[0], "linear_cross_entropy", h)) return error;
  float *loss = c.out[0].as<float>(), *lse = c.out[1].as<float>();
  void* logits = logits_room(h);
  float* losses = static_cast<float*>(scratch(kScratchB, size_t(h.n + 1) * sizeof(float)));
  if (!logits || !losses) return kNoWorkspace;
  for (int64_t i = 0; i < h.n; i += h.chunk_rows) {
    const int64_t m = smaller(h.chunk_rows, h.n - i);
    if (const char* error = make_logits(h, i, m, logits, c.stream)) return error;
    by_float(h.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      head_loss<T><<<unsigned(m), kHeadThreads, 0, c.stream>>>(static_cast<T*>(logits), h.stride, int(h.v), i, h.labels, lse, losses);
    });
  }
  mean_loss<<<1, 1024, 0, c.stream>>>(losses, h.labels, h.n, loss, nullptr);
  return nullptr;
}

KERNEL(linear_cross_entropy_backward, kFloats) {
  Head h;
  if (const char* error = read_head(c, 1, c.attrs[0], "linear_cross_entropy_backward", h)) return error;
  const bool accumulate = c.attrs[1] != 0;
  const View &dx = c.out[0], &dw = c.out[1];
  if (dx.dtype != h.dtype || (dw.dtype != h.dtype && dw.dtype != F32))
    return error_text("linear_cross_entropy_backward: dx must have x's dtype (code %d) and dw that or f32, got codes %d and %d", h.dtype,
                      dx.dtype, dw.dtype);
  if (h.n == 0 || h.c == 0) {
    if (!accumulate) cudaMemsetAsync(dw.data, 0, size_t(dw.bytes()), c.stream);
    return nullptr;
  }
  void* logits = logits_room(h);
  float* scale = static_cast<float*>(scratch(kScratchB, sizeof(float)));
  // Sums over several chunks stay in f32 until the last.
  const bool sums = dw.dtype != F32 && h.chunks() > 1 && dw.numel * 4 <= kMostSums;
  float* sum = sums ? static_cast<float*>(scratch(kScratchC, size_t(dw.numel) * 4)) : nullptr;
  if (!logits || !scale || (sums && !sum)) return kNoWorkspace;
  gradient_scale<<<1, 1024, 0, c.stream>>>(c.in[0].as<float>(), h.labels, h.n, scale);
  for (int64_t i = 0; i < h.n; i += h.chunk_rows) {
    const int64_t m = smaller(h.chunk_rows, h.n - i);
    if (const char* error = make_logits(h, i, m, logits, c.stream)) return error;
    by_float(h.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      head_gradient<T><<<unsigned(m), kHeadThreads, 0, c.stream>>>(static_cast<T*>(logits), h.stride, int(h.v), i, h.labels,
                                                                   c.in[4].as<float>(), scale);
    });
    if (const char* error = make_dx(h, i, m, logits, dx, c.stream)) return error;
    const char* error = sums ? add_dw(h, i, m, logits, sum, F32, i > 0, c.stream)
                             : add_dw(h, i, m, logits, dw.data, DType(dw.dtype), i > 0 || accumulate, c.stream);
    if (error) return error;
  }
  if (!sums) return nullptr;
  by_float(dw.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int N = kVector<T>;
    if (dw.numel % N == 0 && is_aligned(dw.data, 16))
      add_gradient<T, N><<<grid_for(dw.numel, 256 * N), 256, 0, c.stream>>>(sum, dw.as<T>(), dw.numel, accumulate);
    else
      add_gradient<T, 1><<<grid_for(dw.numel, 256), 256, 0, c.stream>>>(sum, dw.as<T>(), dw.numel, accumulate);
    });
  return nullptr;
}

}  // namespace ds
