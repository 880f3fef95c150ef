// Layer and RMS norm forward, the residual addition fused in:
//   h = x + residual (rounded to its storage type), y = (h - mean) rstd w + b    or    y = h rstd w
// x, residual, h, y [rows, C]; w, b [C]; stats f32 [rows, 2] = (mean, rstd) or [rows, 1] = rstd.
// A row stays in the registers of a warp (or of a block, when it is long), so memory sees it once, and the variance is taken from
// h - mean, which doesn't cancel. The order of additions depends on C, the dtype and whether there is a residual.
#pragma once
#include "elementwise.cuh"

namespace ds {

// ---- weights: of the data's dtype or f32, aligned; anything else is widened to f32 first, and so is what has an offset ----
template <class T> __global__ void widen_kernel(int n, const T* from, float offset, float* to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = to_float(from[i]) + offset;
}

// True when kernels can read `w` as it lies beside data of `dtype`.
static inline bool usable_weight(const View& w, int dtype) { return (w.dtype == dtype || w.dtype == F32) && is_aligned(w.data, 16); }

// An f32 copy in scratch, plus `offset`; nullptr: no memory.
static inline const float* widened(cudaStream_t stream, const View& w, ScratchSlot slot, float offset = 0) {
  float* copy = static_cast<float*>(scratch(slot, size_t(w.numel) * sizeof(float)));
  if (copy == nullptr) return nullptr;
  by_float(w.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    widen_kernel<<<unsigned((w.numel + 255) / 256), 256, 0, stream>>>(int(w.numel), w.as<const T>(), offset, copy);
  });
  return copy;
}

// f(w + offset, b) with pointers of one type, the data's or float. b may be nullptr. Weights that only differ in where they lie
// give the same bits.
template <class T, class F>
static const char* with_weights(const Call& c, int dtype, const View* w, const View* b, float offset, const F& f) {
  const bool as_they_lie = offset == 0 && usable_weight(*w, dtype) && (b == nullptr || (usable_weight(*b, dtype) && b->dtype == w->dtype));
  if (as_they_lie && w->dtype == dtype) {
    f(w->as<const T>(), b == nullptr ? nullptr : b->as<const T>());
    return nullptr;
  }
  const bool plain = offset == 0 && w->dtype == F32 && is_aligned(w->data, 16);
  const float* weight = plain ? w->as<const float>() : widened(c.stream, *w, kScratchA, offset);
  const float* bias = nullptr;
  if (b != nullptr) bias = b->dtype == F32 && is_aligned(b->data, 16) ? b->as<const float>() : widened(c.stream, *b, kScratchB);
  if (weight == nullptr || (b != nullptr && bias == nullptr)) return kNoWorkspace;
  f(weight, bias);
  return nullptr;
}

// ---- forward ------------------------------------------------------------------------------------------------------
template <class T, class W> struct NormForward {
  const T *x, *residual;  // residual may be null
  const W *w, *b;
  T *y, *h;
  float* stats;
  int64_t rows;
  int cols;
  float eps;
};

constexpr int kWarpRows = 4;  // rows of a block when each has a warp

// What a warp knows of its elements, and tells the others.
struct WarpPart {
  float count, mean, squares, sum;  // squares about its own mean; for RMS norm mean is 0
};

// Mean and squares about it of a row in the registers of kThreads threads, vector v * kThreads + thread each, behind one barrier: a
// warp takes its own mean and the squares about that, and warps are then merged (Chan, Golub and LeVeque, 1979), which cancels as
// little as going over the row twice.
template <bool Layer, int kThreads, int V, class T>
__device__ __forceinline__ void row_statistics(const Pack<T, kVector<T>> (&h)[V], int thread, int cols, WarpPart* room, float& mean,
                                               float& squares) {
  constexpr int N = kVector<T>, kWarps = kThreads / 32;
  const int vectors = cols / N, warp = kWarps == 1 ? 0 : thread / 32, lane = thread % 32;
  float sum = 0, count = 0;
  mean = squares = 0;
  if constexpr (Layer) {
    int counted = 0;  // vectors of the warp
#pragma unroll
    for (int v = 0; v < V; v++) {
      counted += max(0, min(32, vectors - v * kThreads - warp * 32));
      if (v * kThreads + thread >= vectors) continue;
      float x[N];
      unpack(h[v], x);
#pragma unroll
      for (int k = 0; k < N; k++) sum += x[k];
    }
    sum = warp_reduce(sum, Sum{});
    count = float(counted * N);
    mean = sum / fmaxf(count, 1.0f);
  }
#pragma unroll
  for (int v = 0; v < V; v++) {
    if (v * kThreads + thread >= vectors) break;
    float x[N];
    unpack(h[v], x);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float d = Layer ? x[k] - mean : x[k];
      squares = fmaf(d, d, squares);
    }
  }
  squares = warp_reduce(squares, Sum{});
  if constexpr (kWarps == 1) return;
  if (lane == 0) room[warp] = {count, mean, squares, sum};
  __syncthreads();
  // A lane takes the part of one warp; lanes without one add nothing.
  WarpPart part = {0, 0, 0, 0};
  if (lane < kWarps) part = room[lane];
  constexpr int kLanes = kWarps <= 4 ? 4 : kWarps <= 8 ? 8 : 16;
  const auto over_parts = [&](float x) {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return __shfl_sync(0xffffffffu, x, 0);
  };
  if constexpr (Layer) {
    mean = over_parts(part.sum) / cols;
    const float d = part.mean - mean;
    part.squares = fmaf(part.count * d, d, part.squares);
  }
  squares = over_parts(part.squares);
}

// A row by kThreads threads (32: a warp, of kWarpRows in a block), V vectors each: vector v * kThreads + thread.
template <bool Layer, bool Residual, int kThreads, int V, class T, class W>
__global__ void __launch_bounds__(kThreads == 32 ? 32 * kWarpRows : kThreads) norm_forward(const NormForward<T, W> p) {
  constexpr int N = kVector<T>;
  __shared__ WarpPart room[kThreads / 32];
  const int thread = kThreads == 32 ? threadIdx.x % 32 : threadIdx.x;
  const int64_t row = kThreads == 32 ? int64_t(blockIdx.x) * kWarpRows + threadIdx.x / 32 : blockIdx.x;
  if (row >= p.rows) return;  // a whole warp
  const int64_t start = row * p.cols;
  Pack<T, N> h[V];
#pragma unroll
  for (int v = 0; v < V; v++) {
    const int i = (v * kThreads + thread) * N;
    if (i < p.cols) h[v] = load_pack<N>(p.x + start + i);
  }
  if constexpr (Residual) {
    Pack<T, N> residual[V];
#pragma unroll
    for (int v = 0; v < V; v++) {
      const int i = (v * kThreads + thread) * N;
      if (i < p.cols) residual[v] = load_pack<N>(p.residual + start + i);
    }
#pragma unroll
    for (int v = 0; v < V; v++) {
      const int i = (v * kThreads + thread) * N;
      float a[N], b[N];
      unpack(h[v], a);
      unpack(residual[v], b);
#pragma unroll
      for (int k = 0; k < N; k++) a[k] += b[k];
      h[v] = packed<T>(a);
      if (i < p.cols) store_pack(p.h + start + i, h[v]);
    }
  }
  float mean, squares;
  row_statistics<Layer, kThreads, V, T>(h, thread, p.cols, room, mean, squares);
  const float rstd = rsqrtf(squares / p.cols + p.eps);
#pragma unroll
  for (int v = 0; v < V; v++) {
    const int i = (v * kThreads + thread) * N;
    if (i >= p.cols) break;
    float x[N], w[N], b[N];
    unpack(h[v], x);
    load_table(p.w + i, w);
    if constexpr (Layer) load_table(p.b + i, b);
#pragma unroll
    for (int k = 0; k < N; k++) x[k] = Layer ? fmaf((x[k] - mean) * rstd, w[k], b[k]) : x[k] * rstd * w[k];
    store_pack(p.y + start + i, packed<T>(x));
  }
  if (thread == 0) {
    if constexpr (Layer) p.stats[row * 2] = mean, p.stats[row * 2 + 1] = rstd;
    else p.stats[row] = rstd;
  }
}

// Any C and alignment of the data: a block goes over its row three times. A thread reads again only what it wrote itself.
template <bool Layer, class T, class W> __global__ void __launch_bounds__(256) norm_forward_any(const NormForward<T, W> p) {
  __shared__ float room[32];
  const int64_t row = blockIdx.x;
  const T* h = p.x + row * p.cols;
  float sum = 0;
  if (p.residual != nullptr) {
    const T* residual = p.residual + row * p.cols;
    T* to = p.h + row * p.cols;
    for (int i = threadIdx.x; i < p.cols; i += 256) to[i] = from_float<T>(to_float(h[i]) + to_float(residual[i]));
    h = to;
  }
  float mean = 0;
  if constexpr (Layer) {
    for (int i = threadIdx.x; i < p.cols; i += 256) sum += to_float(h[i]);
    mean = block_reduce(sum, 0.0f, room, Sum{}) / p.cols;
  }
  float squares = 0;
  for (int i = threadIdx.x; i < p.cols; i += 256) {
    const float d = to_float(h[i]) - mean;
    squares = fmaf(d, d, squares);
  }
  const float rstd = 1.0f / sqrtf(block_reduce(squares, 0.0f, room, Sum{}) / p.cols + p.eps);
  T* y = p.y + row * p.cols;
  for (int i = threadIdx.x; i < p.cols; i += 256) {
    const float x = to_float(h[i]), w = to_float(p.w[i]);
    if constexpr (Layer) y[i] = from_float<T>(fmaf((x - mean) * rstd, w, to_float(p.b[i])));
    else y[i] = from_float<T>(x * rstd * w);
  }
  if (threadIdx.x == 0) {
    if constexpr (Layer) p.stats[row * 2] = mean, p.stats[row * 2 + 1] = rstd;
    else p.stats[row] = rstd;
  }
}

template <bool Layer, bool Residual, class T, class W> static void launch_norm(cudaStream_t stream, const NormForward<T, W>& p) {
  constexpr int N = kVector<T>;
  const int vectors = p.cols / N;
  const unsigned rows = unsigned(p.rows), by_warp = unsigned((p.rows + kWarpRows - 1) / kWarpRows);
  const bool regular = p.cols % N == 0 && is_aligned(p.x, 16) && is_aligned(p.residual, 16) && is_aligned(p.y, 16) && is_aligned(p.h, 16);
  // A mean and a deviation take turns over the row: two warps wait less for each other than four, where registers allow.
  constexpr bool kFewWarps = Layer && !Residual;
  if (!regular || vectors > 4096)
    norm_forward_any<Layer><<<rows, 256, 0, stream>>>(p);
  else if (vectors <= 32 * 2)
    norm_forward<Layer, Residual, 32, 2><<<by_warp, 32 * kWarpRows, 0, stream>>>(p);
  else if (vectors <= 32 * 3)
    norm_forward<Layer, Residual, 32, 3><<<by_warp, 32 * kWarpRows, 0, stream>>>(p);
  else if (vectors <= 64 * 2)
    norm_forward<Layer, Residual, 64, 2><<<rows, 64, 0, stream>>>(p);
  else if (vectors <= 128 * 2)
    norm_forward<Layer, Residual, kFewWarps ? 64 : 128, kFewWarps ? 4 : 2><<<rows, kFewWarps ? 64 : 128, 0, stream>>>(p);
  else if (vectors <= 256 * 2)
    norm_forward<Layer, Residual, 256, 2><<<rows, 256, 0, stream>>>(p);
  else if (vectors <= 512 * 2)
    norm_forward<Layer, Residual, 512, 2><<<rows, 512, 0, stream>>>(p);
  else
    norm_forward<Layer, Residual, 512, 8><<<rows, 512, 0, stream>>>(p);
}

// The kernel of both ops, whose shapes are checked: inputs x, w, (b), (residual); outputs y, stats, (h); attributes eps, and RMS norm's
// offset of w.
template <bool Layer> static const char* run_norm(const Call& c, const View* residual) {
  const View &x = c.in[0], &w = c.in[1], &y = c.out[0];
  if (x.numel == 0) return nullptr;
  const char* error = nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    error = with_weights<T>(c, x.dtype, &w, Layer ? &c.in[2] : nullptr, Layer ? 0.0f : float(c.attrs[1]), [&](auto weight, auto bias) {
      using W = std::remove_const_t<std::remove_pointer_t<decltype(weight)>>;
      NormForward<T, W> p{};
      p.x = x.as<const T>(), p.w = weight, p.b = bias, p.y = y.as<T>(), p.stats = c.out[1].as<float>();
      if (residual != nullptr) p.residual = residual->as<const T>(), p.h = c.out[2].as<T>();
      p.rows = x.rows(), p.cols = int(x.cols()), p.eps = float(c.attrs[0]);
      if (residual != nullptr) launch_norm<Layer, true>(c.stream, p);
      else launch_norm<Layer, false>(c.stream, p);
    });
  });
  return error;
}

}  // namespace ds
