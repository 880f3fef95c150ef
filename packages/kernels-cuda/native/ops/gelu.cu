// GELU and its gradients; the function itself is in activation.cuh.
#include "../activation.cuh"
#include "../elementwise.cuh"
#include "../gemm_parts.h"

namespace ds {
namespace {

template <bool Tanh, bool Fast> struct Forward {
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = x * gelu_value<Tanh, Fast>(x).phi; }
};
template <bool Tanh, bool Fast> struct Backward {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float&) const { dx = dy * gelu_value<Tanh, Fast>(x).slope; }
};
template <bool Tanh, bool Fast> struct Recompute {
  __device__ __forceinline__ void operator()(float dy, float x, float& dx, float& y) const {
    const GeluValue v = gelu_value<Tanh, Fast>(x);
    dx = dy * v.slope;
    y = x * v.phi;
  }
};

// ---- backward with the column sums of dx ------------------------------------------------------------------------------------

constexpr int kSumWarps = 8;        // of a block: row r of a chunk belongs to warp r % 8, and the warps' sums are added in order
constexpr int kSumAhead = 2;        // rows of a warp in flight
constexpr int64_t kSumChunk = 64;   // rows of a block

// dy and x [rows, columns], packed; dx may be dy. partial [chunks, columns]: sums of dx before its rounding. A lane has V columns.
template <class T, int V>
__global__ void __launch_bounds__(32 * kSumWarps)
    gelu_backward_columns(const T* dy, const T* x, T* dx, T* y, int64_t rows, int64_t columns, float* partial) {
  constexpr int kTile = 32 * V;
  __shared__ float room[kSumWarps][kTile];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = blockIdx.x * int64_t(kTile) + lane * V, first = blockIdx.y * kSumChunk;
  const int64_t last = first + kSumChunk < rows ? first + kSumChunk : rows;
  float sum[V] = {};
  if (column < columns) {
    for (int64_t r = first + warp; r < last; r += kSumAhead * kSumWarps) {
      Pack<T, V> d[kSumAhead], h[kSumAhead];
#pragma unroll
      for (int u = 0; u < kSumAhead; u++) {
        const int64_t row = r + u * kSumWarps;
        if (row >= last) break;
        d[u] = load_pack<V>(dy + row * columns + column);
        h[u] = load_pack<V>(x + row * columns + column);
      }
#pragma unroll
      for (int u = 0; u < kSumAhead; u++) {
        const int64_t row = r + u * kSumWarps;
        if (row >= last) break;
        float p[V], q[V];
        unpack(d[u], p);
        unpack(h[u], q);
#pragma unroll
        for (int v = 0; v < V; v++) {
          const GeluValue value = gelu_value<true, kFastMath<T>>(q[v]);
          p[v] *= value.slope;
          q[v] *= value.phi;
          sum[v] += p[v];
        }
        store_pack(dx + row * columns + column, packed<T>(p));
        store_pack(y + row * columns + column, packed<T>(q));
      }
    }
  }
#pragma unroll
  for (int v = 0; v < V; v++) room[warp][lane * V + v] = sum[v];
  __syncthreads();
  for (int j = threadIdx.x; j < kTile; j += 32 * kSumWarps) {
    const int64_t at = blockIdx.x * int64_t(kTile) + j;
    if (at >= columns) break;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kSumWarps; w++) total += room[w][j];
    partial[blockIdx.y * columns + at] = total;
  }
}

// f(Tag<T>, whether tanh) for the call's dtype and attribute.
template <class F> void by_kind(const Call& c, const F& f) {
  by_float(c.in[0].dtype, [&](auto t) {
    if (c.attrs[0] != 0)
      f(t, std::true_type{});
    else
      f(t, std::false_type{});
  });
}

}  // namespace

int64_t gelu_backward_chunks(int64_t rows) { return (rows + kSumChunk - 1) / kSumChunk; }

void gelu_backward_sums(const void* dy, const void* x, void* dx, void* y, int dtype, int64_t rows, int64_t columns, float* partial,
                        cudaStream_t stream) {
  if (rows == 0 || columns == 0) return;
  by_float(dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int V = kVector<T>;
    const auto launch = [&](auto kernel, int tile) {
      const dim3 grid(unsigned((columns + tile - 1) / tile), unsigned(gelu_backward_chunks(rows)));
      kernel<<<grid, 32 * kSumWarps, 0, stream>>>(static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dx),
                                                  static_cast<T*>(y), rows, columns, partial);
    };
    const bool wide = columns % V == 0 && is_aligned(dy, 16) && is_aligned(x, 16) && is_aligned(dx, 16) && is_aligned(y, 16);
    if (wide) launch(gelu_backward_columns<T, V>, 32 * V);
    else launch(gelu_backward_columns<T, 1>, 32);
  });
}

KERNEL(gelu, kFloats) {
  if (const char* error = check_alike(c, "gelu", 1, 1)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Forward<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), kNone, c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

KERNEL(gelu_backward, kFloats) {
  if (const char* error = check_alike(c, "gelu_backward", 2, 1)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Backward<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), kNone);
  });
  return nullptr;
}

// (dy, x) -> dx and once more y: a layer that didn't keep its activation needs both, and x is read once for them.
KERNEL(gelu_backward_recompute, kFloats) {
  if (const char* error = check_alike(c, "gelu_backward_recompute", 2, 2)) return error;
  by_kind(c, [&](auto t, auto tanh) {
    using T = typename decltype(t)::type;
    constexpr Recompute<decltype(tanh)::value, kFastMath<T>> f{};
    map(c.stream, c.out[0].numel, f, c.in[0].as<const T>(), c.in[1].as<const T>(), c.out[0].as<T>(), c.out[1].as<T>());
  });
  return nullptr;
}

}  // namespace ds
