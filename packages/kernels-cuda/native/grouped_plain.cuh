// Grouped products that ask nothing of sizes and alignments: f32, and what tensor cores can't load. Tiles of 64 x 64, 4 x 4 of it each
// thread's; the sum of an element is one chain of fused multiply-adds over k.
#pragma once
#include "grouped.cuh"

namespace ds {
namespace grouped {
namespace plain {

constexpr int kTile = 64, kK = 16, kThreads = 256, kEach = 4;

template <Side side, class P> __device__ __forceinline__ float element_a(const P& p, const Tile& t, int m, int k) {
  if (m >= t.m || k >= t.k) return 0;
  if constexpr (side == Side::kWeight) return to_float(p.a[p.gather_a.row(t.begin + k) * p.lda + m]);
  else return to_float(p.a[p.gather_a.row(t.begin + m) * p.lda + k]);
}
template <Side side, class P> __device__ __forceinline__ float element_b(const P& p, const Tile& t, int k, int n) {
  if (n >= t.n || k >= t.k) return 0;
  if constexpr (side == Side::kForward) return to_float(p.weight(t.part, t.expert)[int64_t(n) * p.size + k]);
  else if constexpr (side == Side::kInput) return to_float(p.weight(k / p.out, t.expert)[int64_t(k % p.out) * p.size + n]);
  else return to_float(p.b[p.gather_b.row(t.begin + k) * p.ldb + n]);
}

template <Side side, class T, class TC>
__global__ void __launch_bounds__(kThreads) multiply(const __grid_constant__ Product<T, TC> p) {
  __shared__ float a[kK][kTile + 1], b[kK][kTile + 1];
  const int row = threadIdx.x / 16, column = threadIdx.x % 16;
  Walk<side, kTile, kTile> walk;
  Tile t;
  for (int64_t index = blockIdx.x; walk.find(p, index, t); index += gridDim.x) {
    float c[kEach][kEach] = {};
    for (int k0 = 0; k0 < t.k; k0 += kK) {
      __syncthreads();
      for (int i = threadIdx.x; i < kTile * kK; i += kThreads) {
        // Neighbours in memory are read by neighbours.
        const int am = side == Side::kWeight ? i % kTile : i / kK, ak = side == Side::kWeight ? i / kTile : i % kK;
        const int bn = side == Side::kForward ? i / kK : i % kTile, bk = side == Side::kForward ? i % kK : i / kTile;
        a[ak][am] = element_a<side>(p, t, t.m0 + am, k0 + ak);
        b[bk][bn] = element_b<side>(p, t, k0 + bk, t.n0 + bn);
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kK; k++)
#pragma unroll
        for (int i = 0; i < kEach; i++)
#pragma unroll
          for (int j = 0; j < kEach; j++) c[i][j] = fmaf(a[k][row + i * 16], b[k][column + j * 16], c[i][j]);
    }
#pragma unroll
    for (int i = 0; i < kEach; i++)
#pragma unroll
      for (int j = 0; j < kEach; j++) {
        const int m = t.m0 + row + i * 16, n = t.n0 + column + j * 16;
        if (m >= t.m || n >= t.n) continue;
        auto* to = target<side>(p, t, m, n);
        const float base = p.accumulate ? to_float(*to) : 0.0f;
        *to = from_float<TC>(base + c[i][j]);
      }
  }
}

}  // namespace plain
}  // namespace grouped
}  // namespace ds
