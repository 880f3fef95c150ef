// lse in units of log2 e and delta = dy . y of every row, padded past the last token; see shape.h.
#pragma once
#include "device.cuh"
#include "flash/shape.h"

namespace ds {
namespace flash {

constexpr int kRowLanes = 8, kStatisticsThreads = 256;

// Eight lanes a row of y, in the order of memory: [batch, padded tokens, heads].
template <class T, int N>
__global__ void __launch_bounds__(kStatisticsThreads) statistics_kernel(const Shape s, const T* dy, const T* y, const float* lse, const Statistics to) {
  const int64_t at = (blockIdx.x * int64_t(kStatisticsThreads) + threadIdx.x) / kRowLanes;
  const int lane = threadIdx.x % kRowLanes, h = int(at % s.heads), i = int(at / s.heads % s.padded());
  const int64_t b = at / s.heads / s.padded(), head = b * s.heads + h;
  const bool there = b < s.batch && i < s.tokens;
  float sum = 0;
  if (there) {
    const int64_t row = ((b * s.tokens + i) * s.heads + h) * s.head_dim;
    for (int d = lane * N; d < s.head_dim; d += kRowLanes * N) {
      float left[N], right[N];
      load<N>(dy + row + d, left);
      load<N>(y + row + d, right);
#pragma unroll
      for (int e = 0; e < N; e++) sum = fmaf(left[e], right[e], sum);
    }
  }
#pragma unroll
  for (int offset = kRowLanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane == 0 && b < s.batch) {
    to.lse[head * s.padded() + i] = there ? lse[head * s.tokens + i] * kLog2E : INFINITY;
    to.delta[head * s.padded() + i] = sum;
  }
}

template <class T>
const char* statistics(const Shape& s, const T* dy, const T* y, const float* lse, const Statistics& rows, cudaStream_t stream) {
  constexpr int N = kVector<T>;
  const int64_t lanes = int64_t(s.batch) * s.padded() * s.heads * kRowLanes, blocks = (lanes + kStatisticsThreads - 1) / kStatisticsThreads;
  if (s.head_dim % N == 0 && is_aligned(dy, 16) && is_aligned(y, 16))
    return start(statistics_kernel<T, N>, blocks, kStatisticsThreads, 0, stream, s, dy, y, lse, rows);
  return start(statistics_kernel<T, 1>, blocks, kStatisticsThreads, 0, stream, s, dy, y, lse, rows);
}

}  // namespace flash
}  // namespace ds
