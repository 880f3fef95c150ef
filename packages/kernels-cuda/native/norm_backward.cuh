// Layer and RMS norm backward in one pass. With g = dy w and xhat = (h - mean) rstd, for RMS norm without its mean terms:
//   dx = rstd (g - mean(g) - xhat mean(g xhat)) (+ dh, the gradient that reached h by the residual path)
//   dw = sum over rows of dy xhat, db = sum over rows of dy
// Rows are cut into groups by their number and size alone, never by the device. A block takes a group: it keeps its columns of dw
// and db in registers while the rows go by (the next ones are already on their way) and leaves them as a line of `partial`; a second
// kernel adds the lines, always in the same order.
#pragma once
#include "norm.cuh"

namespace ds {

template <class T, class W> struct NormBackward {
  const T *dy, *h, *dh;  // dh may be null
  const W* w;
  const float* stats;
  T* dx;
  float* partial;  // [groups, (dw [C], db [C])]
  int64_t rows, rows_in_group;
  int cols;
};

// R rows as they are stored, V vectors a thread; rows and columns that there are not are zero.
template <int R, int V, class T> struct NormRows {
  Pack<T, kVector<T>> dy[R][V], h[R][V];
  float mean[R], rstd[R];
};

__device__ __forceinline__ void prefetch(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

template <bool Layer, int kThreads, int R, int V, class T, class W>
__device__ __forceinline__ void load_rows(NormRows<R, V, T>& to, const NormBackward<T, W>& p, int64_t row, int64_t end) {
  constexpr int N = kVector<T>;
#pragma unroll
  for (int r = 0; r < R; r++) {
    const bool real = row + r < end;
    const int64_t start = (row + r) * p.cols;
#pragma unroll
    for (int v = 0; v < V; v++) {
      const int i = (v * kThreads + int(threadIdx.x)) * N;
      to.dy[r][v] = to.h[r][v] = Pack<T, N>{};
      if (real && i < p.cols) {
        to.dy[r][v] = load_pack<N>(p.dy + start + i);
        to.h[r][v] = load_pack<N>(p.h + start + i);
        if (p.dh != nullptr) prefetch(p.dh + start + i);  // into the cache only: registers are full
      }
    }
    to.mean[r] = to.rstd[r] = 0;
    if (real) {
      if constexpr (Layer) to.mean[r] = p.stats[(row + r) * 2], to.rstd[r] = p.stats[(row + r) * 2 + 1];
      else to.rstd[r] = p.stats[row + r];
    }
  }
}

// Sums `x` over the block, all at once, behind one barrier: `room` [K, warps] must be another one in the next call.
template <int K, int kThreads> __device__ __forceinline__ void sum_over_block(float (&x)[K], float (*room)[kThreads / 32]) {
  constexpr int kWarps = kThreads / 32;
#pragma unroll
  for (int k = 0; k < K; k++) x[k] = warp_reduce(x[k], Sum{});
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int k = 0; k < K; k++) room[k][threadIdx.x / 32] = x[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; k++) {
    if constexpr (kWarps <= 8) {
      x[k] = room[k][0];
#pragma unroll
      for (int warp = 1; warp < kWarps; warp++) x[k] += room[k][warp];
    } else {  // fewer registers than so many loads
      x[k] = warp_reduce(threadIdx.x % 32 < kWarps ? room[k][threadIdx.x % 32] : 0.0f, Sum{});
    }
  }
}

template <bool Layer, int kThreads, int R, int V, class T, class W>
__global__ void __launch_bounds__(kThreads, 512 / kThreads) norm_backward(const NormBackward<T, W> p) {
  constexpr int N = kVector<T>, K = Layer ? 2 * R : R;
  __shared__ float room[2][K][kThreads / 32];
  const int64_t first = blockIdx.x * p.rows_in_group, last = first + p.rows_in_group, end = last < p.rows ? last : p.rows;
  float w[V][N], dw[V][N] = {}, db[V][N] = {};
#pragma unroll
  for (int v = 0; v < V; v++) {
    const int i = (v * kThreads + int(threadIdx.x)) * N;
#pragma unroll
    for (int k = 0; k < N; k++) w[v][k] = 0;
    if (i < p.cols) load_table(p.w + i, w[v]);
  }
  NormRows<R, V, T> now, next;
  load_rows<Layer, kThreads>(next, p, first, end);
  int turn = 0;
  for (int64_t row = first; row < end; row += R, turn ^= 1) {
    now = next;
    load_rows<Layer, kThreads>(next, p, row + R, end);
    Pack<T, N> dh[R][V];  // needed behind the barrier
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
      for (int v = 0; v < V; v++) {
        const int i = (v * kThreads + int(threadIdx.x)) * N;
        dh[r][v] = Pack<T, N>{};
        if (p.dh != nullptr && row + r < end && i < p.cols) dh[r][v] = load_pack<N>(p.dh + (row + r) * p.cols + i);
      }
    }
    float sums[K] = {};  // of g xhat, then of g
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
      for (int v = 0; v < V; v++) {
        float d[N], h[N];
        unpack(now.dy[r][v], d);
        unpack(now.h[r][v], h);
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float xhat = (Layer ? h[k] - now.mean[r] : h[k]) * now.rstd[r], g = d[k] * w[v][k];
          sums[r] = fmaf(g, xhat, sums[r]);
          dw[v][k] = fmaf(d[k], xhat, dw[v][k]);
          if constexpr (Layer) sums[R + r] += g, db[v][k] += d[k];
        }
      }
    }
    sum_over_block<K, kThreads>(sums, room[turn]);
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (row + r >= end) break;
      const float mean_gx = sums[r] / p.cols, mean_g = Layer ? sums[K - R + r] / p.cols : 0;
#pragma unroll
      for (int v = 0; v < V; v++) {
        const int i = (v * kThreads + int(threadIdx.x)) * N;
        if (i >= p.cols) break;
        float d[N], h[N], through[N];
        unpack(now.dy[r][v], d);
        unpack(now.h[r][v], h);
        unpack(dh[r][v], through);
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float xhat = (Layer ? h[k] - now.mean[r] : h[k]) * now.rstd[r], g = d[k] * w[v][k];
          d[k] = fmaf(fmaf(xhat, -mean_gx, Layer ? g - mean_g : g), now.rstd[r], through[k]);
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
  const int64_t first = blockIdx.x * p.rows_in_group, last = first + p.rows_in_group, end = last < p.rows ? last : p.rows;
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

// Threads of a row's block on the fast path; 0: it is for the general one. Wide rows take two vectors a thread.
static inline int backward_threads(int64_t vectors) {
  return vectors <= 64 ? 64 : vectors <= 128 ? 128 : vectors <= 256 ? 256 : vectors <= 1024 ? 512 : 0;
}

template <bool Layer, class T, class W>
static void launch_norm_backward(cudaStream_t stream, const NormBackward<T, W>& p, int threads, unsigned groups) {
  const int vectors = p.cols / kVector<T>;
  switch (threads) {
    case 64: norm_backward<Layer, 64, 2, 1><<<groups, 64, 0, stream>>>(p); break;
    case 128: norm_backward<Layer, 128, 2, 1><<<groups, 128, 0, stream>>>(p); break;
    case 256: norm_backward<Layer, 256, 2, 1><<<groups, 256, 0, stream>>>(p); break;
    case 512:
      if (vectors <= 512)
        norm_backward<Layer, 512, 2, 1><<<groups, 512, 0, stream>>>(p);
      else
        norm_backward<Layer, 512, 1, 2><<<groups, 512, 0, stream>>>(p);
      break;
    default: norm_backward_any<Layer><<<groups, 256, 0, stream>>>(p);
  }
}

// The kernel of both ops, whose shapes are checked: inputs dy, h, w, stats, (dh); outputs dx, dw, (db); attributes accumulate.
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
    const int threads = regular ? backward_threads(cols / kVector<T>) : 0;
    // 65,536 threads in all: one filling of an H100 with the registers that a thread needs, and a fixed number.
    const int64_t most = threads == 0 ? 256 : 65536 / threads, in_group = std::max<int64_t>(4, (rows + most - 1) / most);
    groups = (rows + in_group - 1) / in_group;
    float* partial = static_cast<float*>(scratch(kScratchC, size_t(groups * line) * sizeof(float)));
    if (partial == nullptr) {
      error = kNoWorkspace;
      return;
    }
    lines = partial;
    error = with_weights<T>(c, h.dtype, &w, nullptr, [&](auto weight, auto) {
      using W = std::remove_const_t<std::remove_pointer_t<decltype(weight)>>;
      NormBackward<T, W> p{};
      p.dy = dy.as<const T>(), p.h = h.as<const T>(), p.dh = dh == nullptr ? nullptr : dh->as<const T>();
      p.w = weight, p.stats = stats.as<const float>(), p.dx = dx.as<T>(), p.partial = partial;
      p.rows = rows, p.rows_in_group = in_group, p.cols = int(cols);
      launch_norm_backward<Layer>(c.stream, p, threads, unsigned(groups));
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
