// lse in units of log2 e and delta = dy . y of every row, as statistics.cuh makes them, for head sizes 64 and 128 and aligned tensors: a
// thread has all of its loads under way at once. Clears the counters of Hopper's backward besides.
#pragma once
#include <algorithm>

#include "device.cuh"
#include "flash/shape.h"

namespace ds {
namespace flash {

constexpr int kHopperStatisticsThreads = 256;

// Eight lanes a row of y, in the order of memory [batch, padded tokens, heads]; a thread serves four rows of 64 columns or two of 128.
template <class T, int D>
__global__ void __launch_bounds__(kHopperStatisticsThreads)
    hopper_statistics_kernel(const Shape s, const T* dy, const T* y, const float* lse, const Statistics to, unsigned* counters, int64_t counted) {
  constexpr int kRows = D == 64 ? 4 : 2, kParts = D / 64, kStep = kHopperStatisticsThreads / 8;
  const unsigned total = unsigned(s.batch) * s.padded() * s.heads, first = blockIdx.x * unsigned(kStep * kRows) + threadIdx.x / 8;
  const int lane = threadIdx.x % 8;
  const int64_t counter = blockIdx.x * int64_t(kHopperStatisticsThreads) + threadIdx.x;
  if (counter < counted) counters[counter] = 0;
  Pack<T, 8> left[kRows][kParts], right[kRows][kParts];
  int head[kRows], i[kRows];
  bool there[kRows];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const unsigned at = first + r * kStep, token = at / unsigned(s.heads), h = at - token * s.heads, b = token / unsigned(s.padded());
    i[r] = int(token - b * s.padded()), head[r] = at < total ? int(b * s.heads + h) : -1;
    there[r] = at < total && i[r] < s.tokens;
    const int64_t row = ((int64_t(b) * s.tokens + i[r]) * s.heads + h) * D + lane * 8;
#pragma unroll
    for (int part = 0; part < kParts; part++) {
      if (!there[r]) continue;
      left[r][part] = *reinterpret_cast<const Pack<T, 8>*>(dy + row + part * 64);
      right[r][part] = *reinterpret_cast<const Pack<T, 8>*>(y + row + part * 64);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    float sum = 0;
    if (there[r]) {
#pragma unroll
      for (int part = 0; part < kParts; part++)
#pragma unroll
        for (int e = 0; e < 8; e++) sum = fmaf(to_float(left[r][part].v[e]), to_float(right[r][part].v[e]), sum);
    }
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0 && head[r] >= 0) {
      const int64_t at = int64_t(head[r]) * s.padded() + i[r];
      to.lse[at] = there[r] ? lse[int64_t(head[r]) * s.tokens + i[r]] * kLog2E : INFINITY;
      to.delta[at] = sum;
    }
  }
}

// At most 2^31 - 256 rows of scores.
template <class T, int D>
const char* hopper_statistics(const Shape& s, const T* dy, const T* y, const float* lse, const Statistics& rows, unsigned* counters, int64_t counted,
                              cudaStream_t stream) {
  constexpr int kRows = kHopperStatisticsThreads / 8 * (D == 64 ? 4 : 2);
  const int64_t total = int64_t(s.batch) * s.padded() * s.heads;
  const int64_t blocks = std::max((total + kRows - 1) / kRows, (counted + kHopperStatisticsThreads - 1) / kHopperStatisticsThreads);
  return start(hopper_statistics_kernel<T, D>, blocks, kHopperStatisticsThreads, 0, stream, s, dy, y, lse, rows, counters, counted);
}

}  // namespace flash
}  // namespace ds
