// Layer and RMS norm backward in one pass. With g = dy w and xhat = (h - mean) rstd, for RMS norm without its mean terms:
//   dx = rstd (g - mean(g) - xhat mean(g xhat)) (+ dh, the gradient that reached h by the residual path)
//   dw = sum over rows of dy xhat, db = sum over rows of dy
// Rows are dealt to groups by their number and size alone, never by the device. A block takes a group: it keeps its columns of dw
// and db in registers while the rows go by (the next ones are already on their way) and leaves them as a line of `partial`; a second
// kernel adds the lines, always in the same order. Rows are dealt in turn, so that what all blocks read at a time lies together: memory
// likes that better than as many places as there are blocks. It is kept busy by few instructions an element: rows are turned into xhat and
// g once, and a block's sums travel together.
#pragma once
#include "norm.cuh"

namespace ds {

template <class T, class W> struct NormBackward {
  const T *dy, *h, *dh;  // dh may be null
  const W* w;
  const float* stats;
  T* dx;
  float* partial;  // [groups, (dw [C], db [C])]
  int64_t rows;
  int cols;
};

// Sums K values over the block behind one barrier; K is a power of two. Lanes first trade halves of the values, so that K sums cost
// little more than one: lane l ends with value l K / 32. `room` [warps][K] must be another one in the next call.
template <int K, int kThreads> __device__ __forceinline__ void sum_together(float (&x)[K], float* room) {
  constexpr int kWarps = kThreads / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int offset = 16;
#pragma unroll
  for (int m = K / 2; m >= 1; m /= 2, offset /= 2) {
    const bool upper = lane & offset;
#pragma unroll
    for (int i = 0; i < m; i++) {
      const float give = upper ? x[i] : x[i + m], keep = upper ? x[i + m] : x[i];
      x[i] = keep + __shfl_xor_sync(0xffffffffu, give, offset);
    }
  }
#pragma unroll
  for (; offset >= 1; offset /= 2) x[0] += __shfl_xor_sync(0xffffffffu, x[0], offset);
  float sum = x[0];
  constexpr int kShare = 32 / K;  // lanes with one value
  if constexpr (kWarps > 1) {
    if (lane % kShare == 0) room[warp * K + lane / kShare] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w += kShare)
      if (const int at = w + lane % kShare; kWarps % kShare == 0 || at < kWarps) sum += room[at * K + lane / kShare];
#pragma unroll
    for (int step = kShare / 2; step >= 1; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  }
#pragma unroll
  for (int k = 0; k < K; k++) x[k] = __shfl_sync(0xffffffffu, sum, k * kShare);
}

// As the rows arrive they become xhat and g in f32, which wait in registers for the sums of the row.
template <bool Layer, bool Dh, int kThreads, int kBlocks, int R, int V, class T, class W>
__global__ void __launch_bounds__(kThreads, kBlocks) norm_backward(const NormBackward<T, W> p) {
  constexpr int N = kVector<T>, K = Layer ? 2 * R : R;
  __shared__ float room[2][K * kThreads / 32];
  const int64_t first = int64_t(blockIdx.x) * R, step = int64_t(gridDim.x) * R, end = p.rows;
  const float inverse = 1.0f / p.cols;
  float w[V][N], dw[V][N] = {}, db[V][N] = {};
#pragma unroll
  for (int v = 0; v < V; v++) {
    const int i = (v * kThreads + int(threadIdx.x)) * N;
#pragma unroll
    for (int k = 0; k < N; k++) w[v][k] = 0;
    if (i < p.cols) load_table(p.w + i, w[v]);
  }
  Pack<T, N> dy[R][V], h[R][V], dh[Dh ? R : 1][V];
  float mean[R], rstd[R];
  const auto load_all = [&](int64_t row) {
#pragma unroll
    for (int r = 0; r < R; r++) {
      const bool real = row + r < end;
#pragma unroll
      for (int v = 0; v < V; v++) {
        const int i = (v * kThreads + int(threadIdx.x)) * N;
        dy[r][v] = h[r][v] = Pack<T, N>{};
        if (real && i < p.cols) {
          dy[r][v] = load_pack<N>(p.dy + (row + r) * p.cols + i);
          h[r][v] = load_pack<N>(p.h + (row + r) * p.cols + i);
        }
      }
      mean[r] = rstd[r] = 0;
      if (real) {
        if constexpr (Layer) {
          const float2 s = *reinterpret_cast<const float2*>(p.stats + (row + r) * 2);
          mean[r] = s.x, rstd[r] = s.y;
        } else {
          rstd[r] = p.stats[row + r];
        }
      }
    }
  };
  load_all(first);
  int turn = 0;
  for (int64_t row = first; row < end; row += step, turn ^= 1) {
    float g[R][V][N], xhat[R][V][N], scale[R], sums[K] = {};  // sums of g xhat, then of g
#pragma unroll
    for (int r = 0; r < R; r++) {
      scale[r] = rstd[r];
      const float shift = -mean[r] * rstd[r];
#pragma unroll
      for (int v = 0; v < V; v++) {
        float d[N];
        unpack(dy[r][v], d);
        unpack(h[r][v], xhat[r][v]);
#pragma unroll
        for (int k = 0; k < N; k++) {
          float& x = xhat[r][v][k];
          if constexpr (!Layer) x *= rstd[r];
          else if constexpr (sizeof(T) == 2) x = fmaf(x, rstd[r], shift);  // h is coarser than what this loses
          else x = (x - mean[r]) * rstd[r];
          g[r][v][k] = d[k] * w[v][k];
          sums[r] = fmaf(g[r][v][k], x, sums[r]);
          dw[v][k] = fmaf(d[k], x, dw[v][k]);
          if constexpr (Layer) sums[R + r] += g[r][v][k], db[v][k] += d[k];
        }
      }
    }
    if constexpr (Dh) {
#pragma unroll
      for (int r = 0; r < R; r++) {
#pragma unroll
        for (int v = 0; v < V; v++) {
          const int i = (v * kThreads + int(threadIdx.x)) * N;
          if (row + r < end && i < p.cols) dh[r][v] = load_pack<N>(p.dh + (row + r) * p.cols + i);
        }
      }
    }
    load_all(row + step);
    sum_together<K, kThreads>(sums, room[turn]);
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (row + r >= end) break;
      const float by_x = -sums[r] * inverse * scale[r], by_1 = Layer ? -sums[K - R + r] * inverse * scale[r] : 0;
#pragma unroll
      for (int v = 0; v < V; v++) {
        const int i = (v * kThreads + int(threadIdx.x)) * N;
        if (i >= p.cols) break;
        float d[N];
        if constexpr (Dh) unpack(dh[r][v], d);
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float rest = Dh ? (Layer ? by_1 + d[k] : d[k]) : by_1;
          d[k] = fmaf(g[r][v][k], scale[r], fmaf(xhat[r][v][k], by_x, rest));
        }
        store_pack(p.dx + (row + r) * p.cols + i, packed<T>(d));
      }
    }
  }
  float* line = p.partial + int64_t(blockIdx.x) * (Layer ? 2 : 1) * p.cols;
#pragma unroll
  for (int v = 0; v < V; v++) {
    const int i = (v * kThreads + int(threadIdx.x)) * N;
    if (i >= p.cols) break;
#pragma unroll
    for (int k = 0; k < N; k += 4) {
      *reinterpret_cast<float4*>(line + i + k) = make_float4(dw[v][k], dw[v][k + 1], dw[v][k + 2], dw[v][k + 3]);
      if constexpr (Layer)
        *reinterpret_cast<float4*>(line + p.cols + i + k) = make_float4(db[v][k], db[v][k + 1], db[v][k + 2], db[v][k + 3]);
    }
  }
}

// Any C and alignment: a thread owns every 256th column and adds to its places in `partial` in memory.
template <bool Layer, class T, class W> __global__ void __launch_bounds__(256) norm_backward_any(const NormBackward<T, W> p) {
  __shared__ float room[2][32];
  const int64_t first = p.rows * blockIdx.x / gridDim.x, end = p.rows * (blockIdx.x + 1) / gridDim.x;
  float* dw = p.partial + int64_t(blockIdx.x) * (Layer ? 2 : 1) * p.cols;
  for (int64_t row = first; row < end; row++) {
    const T *dy = p.dy + row * p.cols, *h = p.h + row * p.cols;
    const float mean = Layer ? p.stats[row * 2] : 0, rstd = Layer ? p.stats[row * 2 + 1] : p.stats[row];
    float sum = 0, dot = 0;
    for (int i = threadIdx.x; i < p.cols; i += 256) {
      const float d = to_float(dy[i]), xhat = (to_float(h[i]) - mean) * rstd, g = d * to_float(p.w[i]);
      dot = fmaf(g, xhat, dot);
      dw[i] = fmaf(d, xhat, row == first ? 0.0f : dw[i]);
      if constexpr (Layer) {
        sum += g;
        dw[p.cols + i] = row == first ? d : dw[p.cols + i] + d;
      }
    }
    const float mean_gx = block_reduce(dot, 0.0f, room[0], Sum{}) / p.cols;
    const float mean_g = Layer ? block_reduce(sum, 0.0f, room[1], Sum{}) / p.cols : 0;
    for (int i = threadIdx.x; i < p.cols; i += 256) {
      const float xhat = (to_float(h[i]) - mean) * rstd, g = to_float(dy[i]) * to_float(p.w[i]);
      const float through = p.dh == nullptr ? 0.0f : to_float(p.dh[row * p.cols + i]);
      p.dx[row * p.cols + i] = from_float<T>(fmaf(fmaf(xhat, -mean_gx, g - mean_g), rstd, through));
    }
  }
}

// The gradients of w and b, of which a launch may make one or both (blockIdx.y).
template <class T> struct WeightGradients {
  T* out[2];
  bool accumulate[2];
};

// out[j] = (accumulate ? out[j] : 0) + sum over lines of partial[line * stride + j]: a warp's lanes are columns, its block's 32
// warps take every 32nd line each, and their sums are added in order.
template <class T>
__global__ void __launch_bounds__(1024) add_lines(int cols, int lines, int stride, const float* partial, WeightGradients<T> to) {
  __shared__ float room[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
  const float* column = partial + blockIdx.y * cols + j;
  float sum = 0;
  if (j < cols) {
#pragma unroll 8
    for (int line = warp; line < lines; line += 32) sum += column[int64_t(line) * stride];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || j >= cols) return;
  sum = 0;
#pragma unroll
  for (int k = 0; k < 32; k++) sum += room[k][lane];
  T* out = blockIdx.y == 0 ? to.out[0] : to.out[1];
  const bool accumulate = blockIdx.y == 0 ? to.accumulate[0] : to.accumulate[1];
  out[j] = from_float<T>(accumulate ? to_float(out[j]) + sum : sum);
}

// How rows are shared out; of the shape and of whether there is a dh alone.
struct BackwardShape {
  int threads;         // of a row's block; 0: the general path
  int blocks;          // that the registers of a multiprocessor hold
  int64_t groups;      // 132 multiprocessors' fill of blocks, on every device
};
// A dh takes registers: rows then come one at a time where three quarters as many threads again fit for it.
static inline BackwardShape backward_shape(int64_t vectors, int64_t rows, bool dh) {
  BackwardShape shape = {0, 2, 0};
  for (const int threads : {64, 96, 128, 256, 512}) {
    if (vectors > (threads == 512 ? 1024 : threads)) continue;
    shape.threads = threads, shape.blocks = threads == 512 ? 1 : (dh ? 768 : 512) / threads;
    break;
  }
  shape.groups = std::min<int64_t>(132 * shape.blocks, (rows + 3) / 4);
  return shape;
}

template <bool Layer, bool Dh, class T, class W>
static void launch_norm_backward(cudaStream_t stream, const NormBackward<T, W>& p, const BackwardShape& shape) {
  constexpr int R = Dh ? 1 : 2, kFill = Dh ? 768 : 512;
  const unsigned groups = unsigned(shape.groups);
  switch (shape.threads) {
    case 64: norm_backward<Layer, Dh, 64, kFill / 64, R, 1><<<groups, 64, 0, stream>>>(p); break;
    case 96: norm_backward<Layer, Dh, 96, kFill / 96, R, 1><<<groups, 96, 0, stream>>>(p); break;
    case 128: norm_backward<Layer, Dh, 128, kFill / 128, R, 1><<<groups, 128, 0, stream>>>(p); break;
    case 256: norm_backward<Layer, Dh, 256, kFill / 256, R, 1><<<groups, 256, 0, stream>>>(p); break;
    case 512:
      if (p.cols / kVector<T> <= 512)
        norm_backward<Layer, Dh, 512, 1, 2, 1><<<groups, 512, 0, stream>>>(p);
      else
        norm_backward<Layer, Dh, 512, 1, 1, 2><<<groups, 512, 0, stream>>>(p);
      break;
    default: norm_backward_any<Layer><<<groups, 256, 0, stream>>>(p);
  }
}

// The kernel of both ops, whose shapes are checked: inputs dy, h, w, stats, (dh); outputs dx, dw, (db); attributes accumulate, and RMS norm's
// offset of w.
template <bool Layer> static const char* run_norm_backward(const Call& c) {
  const View &dy = c.in[0], &h = c.in[1], &w = c.in[2], &stats = c.in[3], &dx = c.out[0];
  const View* dh = c.n_in > 4 ? &c.in[4] : nullptr;
  const int64_t rows = h.rows(), cols = h.cols();
  if (cols == 0) return nullptr;
  const int64_t line = (Layer ? 2 : 1) * cols;
  int64_t groups = 0;
  const float* lines = nullptr;
  const char* error = nullptr;
  if (rows > 0) by_float(h.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const bool regular = cols % kVector<T> == 0 && is_aligned(dy.data, 16) && is_aligned(h.data, 16) && is_aligned(dx.data, 16) &&
                         (dh == nullptr || is_aligned(dh->data, 16));
    const BackwardShape shape = backward_shape(regular ? cols / kVector<T> : INT64_MAX, rows, dh != nullptr);
    groups = shape.groups;
    float* partial = static_cast<float*>(scratch(kScratchC, size_t(groups * line) * sizeof(float)));
    if (partial == nullptr) {
      error = kNoWorkspace;
      return;
    }
    lines = partial;
    error = with_weights<T>(c, h.dtype, &w, nullptr, Layer ? 0.0f : float(c.attrs[1]), [&](auto weight, auto) {
      using W = std::remove_const_t<std::remove_pointer_t<decltype(weight)>>;
      NormBackward<T, W> p{};
      p.dy = dy.as<const T>(), p.h = h.as<const T>(), p.dh = dh == nullptr ? nullptr : dh->as<const T>();
      p.w = weight, p.stats = stats.as<const float>(), p.dx = dx.as<T>(), p.partial = partial;
      p.rows = rows, p.cols = int(cols);
      if (dh != nullptr) launch_norm_backward<Layer, true>(c.stream, p, shape);
      else launch_norm_backward<Layer, false>(c.stream, p, shape);
    });
  });
  if (error != nullptr) return error;
  const int gradients = Layer ? 2 : 1;
  const bool together = Layer && c.out[1].dtype == c.out[gradients].dtype;
  for (int k = 0; k < (together ? 1 : gradients); k++) {
    by_float(c.out[1 + k].dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const int other = together ? 1 : k;
      const WeightGradients<T> to = {{c.out[1 + k].as<T>(), c.out[1 + other].as<T>()}, {c.attrs[k] != 0, c.attrs[other] != 0}};
      const dim3 grid(unsigned((cols + 31) / 32), together ? 2 : 1);
      add_lines<<<grid, 1024, 0, c.stream>>>(int(cols), int(groups), int(line), lines + k * cols, to);
    });
  }
  return nullptr;
}

}  // namespace ds
