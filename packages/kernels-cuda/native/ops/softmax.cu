// Softmax along the last axis: y = e^(x - max) / sum, and dx = y (dy - sum(dy y)). A NaN or +inf in a row, or a row of -inf,
// makes the row NaN.
#include <type_traits>

#include "../device.cuh"

namespace ds {
namespace {

// 16-bit results hide the error of the fast exponential; f32 ones do not.
template <class T> __device__ __forceinline__ float exponential(float x) { return __expf(x); }
template <> __device__ __forceinline__ float exponential<float>(float x) { return expf(x); }

__device__ __forceinline__ float lowest() { return -__int_as_float(0x7f800000); }

// ---- rows that fit registers: one read, one write ---------------------------------------------------------
// A row belongs to blockDim.x threads, each with kPacks 16-byte packs of it; blockDim.y rows a block (more than one only where a
// row is a warp's, which then needs no barrier). `packs` = C / kVector<T>.
template <class T, int kPacks>
__global__ void __launch_bounds__(512) softmax_rows(const T* x, T* y, int64_t rows, int packs) {
  constexpr int N = kVector<T>;
  using P = Pack<T, N>;
  __shared__ float room[32];
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;  // whole warps of their own rows
  const P* in = reinterpret_cast<const P*>(x) + row * packs;
  P* out = reinterpret_cast<P*>(y) + row * packs;
  P v[kPacks];
  float max = lowest();
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = p * blockDim.x + threadIdx.x;
    if (at < packs) v[p] = in[at];
  }
#pragma unroll
  for (int p = 0; p < kPacks; p++)
    if (p * blockDim.x + threadIdx.x < packs)
#pragma unroll
      for (int i = 0; i < N; i++) max = fmaxf(max, to_float(v[p].v[i]));
  max = block_reduce(max, lowest(), room, Max{});
  // Exponentials stay in f32: 16-bit results are rounded once.
  float e[kPacks][N], sum = 0;
#pragma unroll
  for (int p = 0; p < kPacks; p++)
    if (p * blockDim.x + threadIdx.x < packs)
#pragma unroll
      for (int i = 0; i < N; i++) sum += e[p][i] = exponential<T>(to_float(v[p].v[i]) - max);
  const float inverse = 1.0f / block_reduce(sum, 0.0f, room, Sum{});
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = p * blockDim.x + threadIdx.x;
    if (at >= packs) continue;
#pragma unroll
    for (int i = 0; i < N; i++) v[p].v[i] = from_float<T>(e[p][i] * inverse);
    out[at] = v[p];
  }
}

template <class T, int kPacks>
__global__ void __launch_bounds__(512)
softmax_rows_backward(const T* dy, const T* y, T* dx, int64_t rows, int packs) {
  constexpr int N = kVector<T>;
  using P = Pack<T, N>;
  __shared__ float room[32];
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const P* grad = reinterpret_cast<const P*>(dy) + row * packs;
  const P* prob = reinterpret_cast<const P*>(y) + row * packs;
  P* out = reinterpret_cast<P*>(dx) + row * packs;
  P g[kPacks], q[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = p * blockDim.x + threadIdx.x;
    if (at < packs) g[p] = grad[at], q[p] = prob[at];
  }
  float dot = 0;
#pragma unroll
  for (int p = 0; p < kPacks; p++)
    if (p * blockDim.x + threadIdx.x < packs)
#pragma unroll
      for (int i = 0; i < N; i++) dot += to_float(g[p].v[i]) * to_float(q[p].v[i]);
  dot = block_reduce(dot, 0.0f, room, Sum{});
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = p * blockDim.x + threadIdx.x;
    if (at >= packs) continue;
#pragma unroll
    for (int i = 0; i < N; i++) g[p].v[i] = from_float<T>(to_float(q[p].v[i]) * (to_float(g[p].v[i]) - dot));
    out[at] = g[p];
  }
}

// ---- rows of any length and alignment: a block a row, read twice (the second time mostly from the L2 cache) ----
template <class T, int N> __global__ void __launch_bounds__(512) softmax_long(const T* x, T* y, int64_t C) {
  __shared__ float room[32];
  const T* in = x + int64_t(blockIdx.x) * C;
  T* out = y + int64_t(blockIdx.x) * C;
  float max = lowest(), sum = 0, v[N];
  for (int64_t i = int64_t(threadIdx.x) * N; i < C; i += int64_t(blockDim.x) * N) {
    load(in + i, v);
    float top = max;
#pragma unroll
    for (int k = 0; k < N; k++) top = fmaxf(top, v[k]);
    const float shift = top == lowest() ? 0.0f : top;  // -inf only, so far: their terms are 0
    sum *= exponential<T>(max - shift);
#pragma unroll
    for (int k = 0; k < N; k++) sum += exponential<T>(v[k] - shift);
    max = top;
  }
  const float top = block_reduce(max, lowest(), room, Max{});
  sum *= exponential<T>(max - (top == lowest() ? 0.0f : top));
  const float inverse = 1.0f / block_reduce(sum, 0.0f, room, Sum{});
  for (int64_t i = int64_t(threadIdx.x) * N; i < C; i += int64_t(blockDim.x) * N) {
    load(in + i, v);
#pragma unroll
    for (int k = 0; k < N; k++) v[k] = exponential<T>(v[k] - top) * inverse;
    store(out + i, v);
  }
}

template <class T, int N> __global__ void __launch_bounds__(512) softmax_long_backward(const T* dy, const T* y, T* dx, int64_t C) {
  __shared__ float room[32];
  const int64_t start = int64_t(blockIdx.x) * C;
  float dot = 0, g[N], q[N];
  for (int64_t i = int64_t(threadIdx.x) * N; i < C; i += int64_t(blockDim.x) * N) {
    load(dy + start + i, g);
    load(y + start + i, q);
#pragma unroll
    for (int k = 0; k < N; k++) dot += g[k] * q[k];
  }
  dot = block_reduce(dot, 0.0f, room, Sum{});
  for (int64_t i = int64_t(threadIdx.x) * N; i < C; i += int64_t(blockDim.x) * N) {
    load(dy + start + i, g);
    load(y + start + i, q);
#pragma unroll
    for (int k = 0; k < N; k++) g[k] = q[k] * (g[k] - dot);
    store(dx + start + i, g);
  }
}

// How a row is shared out; the same for a shape on every device, so that results do not depend on it.
struct RowShape {
  int packs_each;  // 1, 2 or 4; 0: too long for registers
  dim3 block;
};
RowShape row_shape(int64_t packs) {
  const auto shape = [&](int threads, int rows) {
    const int64_t each = (packs + threads - 1) / threads;
    return RowShape{each <= 1 ? 1 : each <= 2 ? 2 : 4, dim3(unsigned(threads), unsigned(rows))};
  };
  if (packs <= 32 * 4) return shape(32, 4);
  if (packs <= 128 * 4) return shape(128, 1);
  if (packs <= 512 * 4) return shape(512, 1);
  return {0, dim3(512)};
}
template <class F> void by_packs(int packs, const F& f) {
  switch (packs) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 4: return f(std::integral_constant<int, 4>{});
  }
}
unsigned blocks_for(int64_t rows, const dim3& block) { return unsigned((rows + block.y - 1) / block.y); }

}  // namespace

KERNEL(softmax, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (y.numel != x.numel || y.dtype != x.dtype) return error_text("softmax: y must be like x");
  if (x.numel == 0) return nullptr;
  const int64_t C = x.cols(), rows = x.rows();
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int N = kVector<T>;
    const T* in = x.as<T>();
    T* out = y.as<T>();
    const bool vectors = C % N == 0 && is_aligned(in, 16) && is_aligned(out, 16);
    const RowShape shape = row_shape(C / N);
    if (!vectors)
      softmax_long<T, 1><<<unsigned(rows), C <= 1024 ? 128 : 512, 0, c.stream>>>(in, out, C);
    else if (shape.packs_each == 0)
      softmax_long<T, N><<<unsigned(rows), 512, 0, c.stream>>>(in, out, C);
    else
      by_packs(shape.packs_each, [&](auto packs) {
        softmax_rows<T, decltype(packs)::value><<<blocks_for(rows, shape.block), shape.block, 0, c.stream>>>(in, out, rows, int(C / N));
      });
  });
  return nullptr;
}

KERNEL(softmax_backward, kFloats) {
  const View &dy = c.in[0], &y = c.in[1], &dx = c.out[0];
  if (dy.numel != y.numel || dx.numel != y.numel || dy.dtype != y.dtype || dx.dtype != y.dtype)
    return error_text("softmax_backward: dy, y and dx must have one shape and dtype");
  if (y.numel == 0) return nullptr;
  const int64_t C = y.cols(), rows = y.rows();
  by_float(y.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int N = kVector<T>;
    const T *grad = dy.as<T>(), *prob = y.as<T>();
    T* out = dx.as<T>();
    const bool vectors = C % N == 0 && is_aligned(grad, 16) && is_aligned(prob, 16) && is_aligned(out, 16);
    const RowShape shape = row_shape(C / N);
    if (!vectors)
      softmax_long_backward<T, 1><<<unsigned(rows), C <= 1024 ? 128 : 512, 0, c.stream>>>(grad, prob, out, C);
    else if (shape.packs_each == 0)
      softmax_long_backward<T, N><<<unsigned(rows), 512, 0, c.stream>>>(grad, prob, out, C);
    else
      by_packs(shape.packs_each, [&](auto packs) {
        softmax_rows_backward<T, decltype(packs)::value>
            <<<blocks_for(rows, shape.block), shape.block, 0, c.stream>>>(grad, prob, out, rows, int(C / N));
      });
  });
  return nullptr;
}

}  // namespace ds
