// The products of a language model's head: logits [N, V] = x w' exist for a chunk of rows at a time, summed in f32 and stored in the
// dtype of x: their traffic is what the loss costs. Small problems, which it costs little, get them in f32 instead. What a chunk
// leaves in dx and dw follows from the gradient of its logits, in the dtype of x.
#pragma once
#include "cross_entropy.cuh"
#include "gemm.h"

namespace ds {

// Logits at a time. A product wants a few thousand rows, so large vocabularies get up to kMostLogits. 544 MiB are 5632 rows of
// GPT-2's vocabulary: dx [5632, 768] is then 132 tiles of 128x256, one for each multiprocessor of an H100.
constexpr int64_t kLogitBytes = int64_t(544) << 20, kMostLogits = int64_t(1100) << 20, kEnoughRows = 4096;
// All logits of a batch in f32 up to this size.
constexpr int64_t kSmallBytes = int64_t(64) << 20;

struct Head {
  const View *x = nullptr, *w = nullptr;
  Labels labels = {};
  int64_t n = 0, c = 0, v = 0;
  int64_t stride = 0;  // elements between rows of logits
  int64_t chunk_rows = 0;
  DType dtype = F32;         // of x, w and the gradient of the logits
  DType logit_dtype = F32;
  float softcap = 0;  // logits l are softcap tanh(l / softcap); 0: as they are
  float uncap() const { return softcap > 0 ? 1 / softcap : 0; }
  int64_t chunks() const { return chunk_rows == 0 ? 0 : (n + chunk_rows - 1) / chunk_rows; }
};

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static inline const char* read_head(const Call& c, int first, double ignored, double softcap, const char* op, Head& h) {
  const View &x = c.in[first], &w = c.in[first + 1], &labels = c.in[first + 2];
  h.x = &x, h.w = &w, h.n = x.rows(), h.c = x.cols(), h.v = w.dims[0], h.dtype = DType(x.dtype);
  if (w.cols() != h.c || labels.numel != h.n)
    return error_text("%s: x has %lld rows of %lld, w rows of %lld, and there are %lld labels", op, (long long)h.n, (long long)h.c,
                      (long long)w.cols(), (long long)labels.numel);
  if (labels.dtype != I32) return error_text("%s: labels must be i32, got dtype code %d", op, labels.dtype);
  if (w.dtype != x.dtype) return error_text("%s: x and w must have one dtype, got codes %d and %d", op, x.dtype, w.dtype);
  if (h.v < 1 || h.v >= (1 << 30)) return error_text("%s: %lld rows of w, expected 1 to 2^30", op, (long long)h.v);
  h.labels = {labels.as<int32_t>(), int32_t(ignored), fault_slot()};
  h.softcap = softcap > 0 ? float(softcap) : 0;
  h.stride = round_up(h.v, 64);
  h.logit_dtype = h.n * h.stride * 4 <= kSmallBytes ? F32 : h.dtype;
  // Chunks of about equal size, of whole tiles of a product.
  const int64_t row_bytes = h.stride * kElementBytes[h.logit_dtype];
  int64_t most = kLogitBytes / row_bytes;
  if (most < kEnoughRows) most = smaller(kEnoughRows, kMostLogits / row_bytes);
  most = most < 256 ? 256 : most / 256 * 256;
  const int64_t chunks = (h.n + most - 1) / most;
  h.chunk_rows = chunks <= 1 ? h.n : smaller(round_up((h.n + chunks - 1) / chunks, 256), most);
  return nullptr;
}

static inline const void* row_of(const View& view, int64_t row, int64_t columns) {
  return view.as<char>() + row * columns * kElementBytes[view.dtype];
}

// Logits of a chunk and where their gradient goes: the same memory where they have one dtype.
struct Chunk {
  void *logits, *gradient;
};
static inline bool chunk_room(const Head& h, bool with_gradient, Chunk& chunk) {
  const int64_t elements = h.chunk_rows * h.stride;
  chunk.logits = chunk.gradient = scratch(kScratchA, size_t(elements * kElementBytes[h.logit_dtype] + 16));
  if (with_gradient && h.logit_dtype != h.dtype) chunk.gradient = scratch(kScratchD, size_t(elements * kElementBytes[h.dtype] + 16));
  return chunk.logits && chunk.gradient;
}
// f(Tag<L>{}, Tag<T>{}) with the types of logits and gradient.
template <class F> static inline void by_logits(const Head& h, const F& f) {
  by_float(h.dtype, [&](auto t) {
    if (h.logit_dtype == F32)
      f(Tag<float>{}, t);
    else
      f(t, t);
  });
}

// Logits of m rows from row i.
static inline const char* make_logits(const Head& h, int64_t i, int64_t m, void* logits, cudaStream_t stream) {
  Gemm g = {};
  g.m = m, g.n = h.v, g.k = h.c;
  g.a = row_of(*h.x, i, h.c), g.lda = h.c;
  g.b = h.w->data, g.ldb = h.c, g.transpose_b = true;
  g.c = logits, g.ldc = h.stride;
  g.in_dtype = h.dtype, g.out_dtype = h.logit_dtype;
  const char* error = gemm(g, stream);
  if (error != nullptr || h.softcap == 0) return error;
  by_float(h.logit_dtype, [&](auto l) {
    using L = typename decltype(l)::type;
    const int64_t packs = m * h.stride / kVector<L>;
    cap_logits<<<grid_for(packs, 256), 256, 0, stream>>>(static_cast<L*>(logits), packs, h.softcap);
  });
  return nullptr;
}
// dx of m rows from row i = gradient w.
static inline const char* make_dx(const Head& h, int64_t i, int64_t m, const void* gradient, const View& dx, cudaStream_t stream) {
  Gemm g = {};
  g.m = m, g.n = h.c, g.k = h.v;
  g.a = gradient, g.lda = h.stride;
  g.b = h.w->data, g.ldb = h.c;
  g.c = const_cast<void*>(row_of(dx, i, h.c)), g.ldc = h.c;
  g.in_dtype = g.out_dtype = h.dtype;
  return gemm(g, stream);
}
// dw (+)= gradient' x over those rows.
static inline const char* add_dw(const Head& h, int64_t i, int64_t m, const void* gradient, void* dw, DType dtype, bool accumulate, cudaStream_t stream) {
  Gemm g = {};
  g.m = h.v, g.n = h.c, g.k = m;
  g.a = gradient, g.lda = h.stride, g.transpose_a = true;
  g.b = row_of(*h.x, i, h.c), g.ldb = h.c;
  g.c = dw, g.ldc = h.c;
  g.in_dtype = h.dtype, g.out_dtype = dtype;
  g.beta = accumulate ? 1 : 0;
  return gemm(g, stream);
}

}  // namespace ds
