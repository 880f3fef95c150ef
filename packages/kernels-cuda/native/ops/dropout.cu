// y = keep ? x / (1 - p) : 0 (Srivastava et al., 2014), keep decided by Philox at the element's flat index, so backward is the same
// op on dy.
#include "../elementwise.cuh"
#include "../philox.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256, kVectors = 4;

struct Mask {
  PhiloxKey key;
  uint32_t threshold;
  float factor;
  __device__ __forceinline__ float apply(uint32_t word, float x) const { return word >> 8 >= threshold ? x * factor : 0.0f; }
};

__device__ __forceinline__ uint32_t word_of(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

// N is a multiple of the 4 elements that one Philox block decides.
template <int N, class T> __global__ void __launch_bounds__(kThreads) dropout_kernel(int64_t n, Mask mask, const T* x, T* y) {
  const int64_t vectors = n / N, first = int64_t(blockIdx.x) * (kThreads * kVectors) + threadIdx.x;
  Pack<T, N> a[kVectors];
#pragma unroll
  for (int u = 0; u < kVectors; u++)
    if (const int64_t i = first + u * kThreads; i < vectors) a[u] = load_pack<N>(x + i * N);
#pragma unroll
  for (int u = 0; u < kVectors; u++) {
    const int64_t i = first + u * kThreads;
    if (i >= vectors) break;
    float v[N];
    unpack(a[u], v);
#pragma unroll
    for (int at = 0; at < N; at += 4) {
      const uint4 words = philox(mask.key, uint64_t(i * N + at) / 4);
#pragma unroll
      for (int k = 0; k < 4; k++) v[at + k] = mask.apply(word_of(words, k), v[at + k]);
    }
    store_pack(y + i * N, packed<T>(v));
  }
  const int64_t rest = vectors * N + threadIdx.x;
  if (blockIdx.x == gridDim.x - 1 && rest < n)
    y[rest] = from_float<T>(mask.apply(word_of(philox(mask.key, uint64_t(rest) / 4), int(rest % 4)), to_float(x[rest])));
}

// For data that isn't aligned to 16 bytes.
template <class T> __global__ void __launch_bounds__(kThreads) dropout_each(int64_t n, Mask mask, const T* x, T* y) {
  const int64_t block = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (block * 4 >= n) return;
  const uint4 words = philox(mask.key, uint64_t(block));
  for (int k = 0; k < 4; k++)
    if (const int64_t i = block * 4 + k; i < n) y[i] = from_float<T>(mask.apply(word_of(words, k), to_float(x[i])));
}

}  // namespace

KERNEL(dropout, kFloats) {
  if (const char* error = check_alike(c, "dropout", 1, 1)) return error;
  const double p = c.attrs[0];
  const Mask mask = {{uint32_t(c.attrs[1]), uint32_t(c.attrs[2]), uint32_t(c.attrs[3]), uint32_t(c.attrs[4])},
                     dropout_threshold(p),
                     float(1 / (1 - p))};
  const int64_t n = c.out[0].numel;
  if (n == 0) return nullptr;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int N = kVector<T>;
    const T* x = c.in[0].as<const T>();
    T* y = c.out[0].as<T>();
    if (is_aligned(x, 16) && is_aligned(y, 16)) {
      constexpr int64_t tile = int64_t(N) * kThreads * kVectors;
      dropout_kernel<N><<<unsigned((n + tile - 1) / tile), kThreads, 0, c.stream>>>(n, mask, x, y);
    } else {
      dropout_each<<<unsigned((n + 4 * kThreads - 1) / (4 * kThreads)), kThreads, 0, c.stream>>>(n, mask, x, y);
    }
  });
  return nullptr;
}

}  // namespace ds
