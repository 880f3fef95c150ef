// RMS norm of every query and key head of packed qkv [rows, (heads + 2 kv_heads) D]; value heads are copied. wq, wk [D]; stats f32
// [rows, heads + kv_heads] = rstd = 1 / sqrt(mean(x^2) + eps); y = x rstd (w + offset). A warp has a head.
#include "../norm_backward.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kMostDim = 256;

struct Heads {
  int64_t rows;
  int heads, normed, all, d;  // query heads; query and key heads; with value heads; elements of a head
  float eps, offset;
};

const char* read_heads(const char* op, const Call& c, const View& qkv, const View& wq, const View& wk, Heads& s) {
  const int64_t heads = int64_t(c.attrs[0]), kv_heads = int64_t(c.attrs[1]), d = int64_t(c.attrs[2]);
  if (d <= 0 || qkv.cols() != (heads + 2 * kv_heads) * d || wq.numel != d || wk.numel != d || wq.dtype != wk.dtype)
    return error_text("%s: %lld query and %lld key/value heads of %lld in rows of %lld, weights of %lld and %lld", op, (long long)heads,
                      (long long)kv_heads, (long long)d, (long long)qkv.cols(), (long long)wq.numel, (long long)wk.numel);
  if (d > kMostDim) return error_text("%s: head_dim is at most %d, got %lld", op, kMostDim, (long long)d);
  s = {qkv.rows(), int(heads), int(heads + kv_heads), int(heads + 2 * kv_heads), int(d), float(c.attrs[3]), float(c.attrs[4])};
  return nullptr;
}

// f(i, k) for the elements i of a lane, k counting its vectors of N.
template <int N, class F> __device__ __forceinline__ void for_lane(int d, const F& f) {
#pragma unroll
  for (int k = 0; k < kMostDim / (32 * N); k++) {
    const int i = (k * 32 + int(threadIdx.x % 32)) * N;
    if (i < d) f(i, k);
  }
}

template <int N, class T, class W>
__global__ void __launch_bounds__(kThreads) head_norm_kernel(const Heads s, const T* x, const W* wq, const W* wk, T* y, float* stats) {
  const int64_t item = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, row = item / s.all;
  if (row >= s.rows) return;
  const int head = int(item - row * s.all);
  if (head >= s.normed && x == y) return;
  const T* from = x + item * s.d;
  T* to = y + item * s.d;
  float v[kMostDim / (32 * N)][N], squares = 0;
  for_lane<N>(s.d, [&](int i, int k) {
    load<N>(from + i, v[k]);
#pragma unroll
    for (int e = 0; e < N; e++) squares = fmaf(v[k][e], v[k][e], squares);
  });
  if (head < s.normed) {
    const float rstd = 1.0f / sqrtf(warp_reduce(squares, Sum{}) / s.d + s.eps);
    const W* w = head < s.heads ? wq : wk;
    for_lane<N>(s.d, [&](int i, int k) {
#pragma unroll
      for (int e = 0; e < N; e++) v[k][e] *= rstd * (to_float(w[i + e]) + s.offset);
    });
    if (threadIdx.x % 32 == 0) stats[row * s.normed + head] = rstd;
  }
  for_lane<N>(s.d, [&](int i, int k) { store<N>(to + i, v[k]); });
}

// With g = dy (w + offset) and xhat = x rstd: dx = rstd (g - xhat mean(g xhat)), dw = sum over rows and heads of dy xhat. A block
// takes a group of rows; its warps take every kWarps-th head of the group, and their sums are added in order, a line of `partial`
// [groups, (dwq [D], dwk [D])].
template <int N, class T, class W>
__global__ void __launch_bounds__(kThreads)
    head_norm_backward_kernel(const Heads s, const T* dy, const T* x, const W* wq, const W* wk, const float* stats, T* dx, float* partial) {
  constexpr int V = kMostDim / (32 * N);
  __shared__ float room[kWarps][2 * kMostDim];
  const int warp = threadIdx.x / 32;
  const int64_t first = s.rows * blockIdx.x / gridDim.x * s.all, end = s.rows * (blockIdx.x + 1) / gridDim.x * s.all;
  float dwq[V][N] = {}, dwk[V][N] = {};
  for (int64_t item = first + warp; item < end; item += kWarps) {
    const int64_t row = item / s.all;
    const int head = int(item - row * s.all);
    float g[V][N], xhat[V][N];
    for_lane<N>(s.d, [&](int i, int k) { load<N>(dy + item * s.d + i, g[k]); });
    if (head < s.normed) {
      const bool query = head < s.heads;
      const W* w = query ? wq : wk;
      const float rstd = stats[row * s.normed + head];
      float dot = 0;
      for_lane<N>(s.d, [&](int i, int k) {
        load<N>(x + item * s.d + i, xhat[k]);
#pragma unroll
        for (int e = 0; e < N; e++) {
          xhat[k][e] *= rstd;
          if (query) dwq[k][e] = fmaf(g[k][e], xhat[k][e], dwq[k][e]);
          else dwk[k][e] = fmaf(g[k][e], xhat[k][e], dwk[k][e]);
          g[k][e] *= to_float(w[i + e]) + s.offset;
          dot = fmaf(g[k][e], xhat[k][e], dot);
        }
      });
      const float mean = warp_reduce(dot, Sum{}) / s.d;
      for_lane<N>(s.d, [&](int, int k) {
#pragma unroll
        for (int e = 0; e < N; e++) g[k][e] = rstd * fmaf(xhat[k][e], -mean, g[k][e]);
      });
    } else if (dy == dx) {
      continue;
    }
    for_lane<N>(s.d, [&](int i, int k) { store<N>(dx + item * s.d + i, g[k]); });
  }
  for_lane<N>(s.d, [&](int i, int k) {
#pragma unroll
    for (int e = 0; e < N; e++) room[warp][i + e] = dwq[k][e], room[warp][s.d + i + e] = dwk[k][e];
  });
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * s.d; i += kThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) sum += room[w][i];
    partial[int64_t(blockIdx.x) * 2 * s.d + i] = sum;
  }
}

// f(T, N as a constant, weights) by dtype and alignment: N elements of T in one access.
template <class F> void by_access(int dtype, int d, std::initializer_list<const void*> tensors, const F& f) {
  by_float(dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    bool aligned = d % 4 == 0;
    for (const void* tensor : tensors) aligned = aligned && is_aligned(tensor, 4 * sizeof(T));
    if (aligned) f(t, std::integral_constant<int, 4>{});
    else f(t, std::integral_constant<int, 1>{});
  });
}

// f(wq, wk) with pointers of their type.
template <class F> void with_type(const View& wq, const View& wk, const F& f) {
  by_float(wq.dtype, [&](auto t) {
    using W = typename decltype(t)::type;
    f(wq.as<const W>(), wk.as<const W>());
  });
}

}  // namespace

KERNEL(head_norm, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  Heads s;
  if (const char* error = read_heads("head_norm", c, x, c.in[1], c.in[2], s)) return error;
  if (x.numel == 0) return nullptr;
  const int64_t blocks = (s.rows * s.all + kWarps - 1) / kWarps;
  if (blocks > INT32_MAX) return error_text("head_norm: %lld heads are more than a launch takes", (long long)(s.rows * s.all));
  by_access(x.dtype, s.d, {x.data, y.data}, [&](auto t, auto n) {
    using T = typename decltype(t)::type;
    with_type(c.in[1], c.in[2], [&](auto wq, auto wk) {
      head_norm_kernel<decltype(n)::value>
          <<<unsigned(blocks), kThreads, 0, c.stream>>>(s, x.as<const T>(), wq, wk, y.as<T>(), c.out[1].as<float>());
    });
  });
  return nullptr;
}

KERNEL(head_norm_backward, kFloats) {
  const View &dy = c.in[0], &x = c.in[1], &dx = c.out[0];
  Heads s;
  if (const char* error = read_heads("head_norm_backward", c, x, c.in[2], c.in[3], s)) return error;
  // By the shape alone: the order of sums is the same on every device.
  const int groups = int(std::min<int64_t>(264, s.rows));
  auto* partial = static_cast<float*>(scratch(kScratchC, size_t(groups) * 2 * s.d * sizeof(float)));
  if (partial == nullptr) return kNoWorkspace;
  if (groups > 0)
    by_access(x.dtype, s.d, {dy.data, x.data, dx.data}, [&](auto t, auto n) {
      using T = typename decltype(t)::type;
      with_type(c.in[2], c.in[3], [&](auto wq, auto wk) {
        head_norm_backward_kernel<decltype(n)::value><<<groups, kThreads, 0, c.stream>>>(
            s, dy.as<const T>(), x.as<const T>(), wq, wk, c.in[4].as<const float>(), dx.as<T>(), partial);
      });
    });
  for (int k = 0; k < 2; k++)
    by_float(c.out[1 + k].dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const WeightGradients<T> to = {{c.out[1 + k].as<T>(), nullptr}, {c.attrs[5 + k] != 0, false}};
      add_lines<<<dim3(unsigned((s.d + 31) / 32), 1), 1024, 0, c.stream>>>(s.d, groups, 2 * s.d, partial + k * s.d, to);
    });
  return nullptr;
}

}  // namespace ds
