// What the kernels without tensor cores share. Tiles are f32 in shared memory, head_dim padded with zeros to D, rows D + 4 floats
// apart; 256 threads are 16 x 16, thread (y, x) has rows y * R .. and columns x, x + 16, .. of a product of N x N.
#pragma once
#include <type_traits>

#include "device.cuh"
#include "flash/bend.cuh"
#include "flash/shape.h"

namespace ds {
namespace flash {

constexpr int kPlainThreads = 256;

template <int D> constexpr int kPlainRow = D + 4;

// Rows of `width` values, `stride` apart, as N rows of D floats.
template <int N, int D, class T>
__device__ __forceinline__ void load_plain(float* to, const T* from, int64_t stride, int rows_there, int width) {
  for (int at = threadIdx.x; at < N * D; at += kPlainThreads) {
    const int row = at / D, column = at % D;
    to[row * kPlainRow<D> + column] = row < rows_there && column < width ? to_float(from[row * stride + column]) : 0.f;
  }
}

// c = a b', by rows.
template <int N, int D> __device__ __forceinline__ void multiply_plain(float (&c)[N / 16][N / 16], const float* a, const float* b) {
  constexpr int R = N / 16;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < R; i++)
#pragma unroll
    for (int j = 0; j < R; j++) c[i][j] = 0;
#pragma unroll 4
  for (int k = 0; k < D; k += 4) {
    float4 left[R], right[R];
#pragma unroll
    for (int i = 0; i < R; i++) left[i] = *reinterpret_cast<const float4*>(a + (y * R + i) * kPlainRow<D> + k);
#pragma unroll
    for (int j = 0; j < R; j++) right[j] = *reinterpret_cast<const float4*>(b + (x + 16 * j) * kPlainRow<D> + k);
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
      for (int j = 0; j < R; j++) {
        c[i][j] = fmaf(left[i].x, right[j].x, c[i][j]);
        c[i][j] = fmaf(left[i].y, right[j].y, c[i][j]);
        c[i][j] = fmaf(left[i].z, right[j].z, c[i][j]);
        c[i][j] = fmaf(left[i].w, right[j].w, c[i][j]);
      }
  }
}

// A thread's columns of an N x D result: kRun neighbours in every 16 * kRun.
template <int D> constexpr int kRun = D >= 64 ? 4 : 2;
template <int D> __device__ __forceinline__ int plain_column(int c) {
  return c / kRun<D> * 16 * kRun<D> + int(threadIdx.x % 16) * kRun<D> + c % kRun<D>;
}

// out += p v: p [N x N], rows N + 4 apart; v [N x D].
template <int N, int D> __device__ __forceinline__ void accumulate_plain(float (&out)[N / 16][D / 16], const float* p, const float* v) {
  constexpr int R = N / 16;
  const int y = threadIdx.x / 16;
#pragma unroll 2
  for (int k = 0; k < N; k += 4) {
    float4 left[R];
#pragma unroll
    for (int i = 0; i < R; i++) left[i] = *reinterpret_cast<const float4*>(p + (y * R + i) * (N + 4) + k);
#pragma unroll
    for (int step = 0; step < 4; step++) {
      const float* row = v + (k + step) * kPlainRow<D>;
#pragma unroll
      for (int c = 0; c < D / 16; c++) {
        const float right = row[plain_column<D>(c)];
#pragma unroll
        for (int i = 0; i < R; i++) {
          const float value = step == 0 ? left[i].x : step == 1 ? left[i].y : step == 2 ? left[i].z : left[i].w;
          out[i][c] = fmaf(value, right, out[i][c]);
        }
      }
    }
  }
}

template <int N> __device__ __forceinline__ void put_plain(float* p, const float (&c)[N / 16][N / 16]) {
  constexpr int R = N / 16;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < R; i++)
#pragma unroll
    for (int j = 0; j < R; j++) p[(y * R + i) * (N + 4) + x + 16 * j] = c[i][j];
}

template <int N, int D, class T>
__device__ __forceinline__ void store_plain(const float (&out)[N / 16][D / 16], const float (&factor)[N / 16], T* to, int64_t stride,
                                            int rows_there, int width) {
  constexpr int R = N / 16;
  const int y = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < R; i++)
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
      const int row = y * R + i, column = plain_column<D>(c);
      if (row < rows_there && column < width) to[row * stride + column] = from_float<T>(out[i][c] * factor[i]);
    }
}

// Bit r * R + c: dropout lets the probability at (query, key) of a thread's product element (r, c) stay. `across`: keys are the
// columns, else the rows. `row`: that of query 0 of the head. A loop, so that the generator is in the code once.
template <int N>
__device__ __forceinline__ uint32_t staying(const Shape& s, int64_t row, int i0, int j0, bool across) {
  constexpr int R = N / 16;
  if (s.dropped == 0) return ~0u;
  uint32_t bits = 0;
#pragma unroll 1
  for (int e = 0; e < R * R; e++) {
    const int down = int(threadIdx.x / 16) * R + e / R, over = int(threadIdx.x % 16) + 16 * (e % R);
    const int i = i0 + (across ? down : over), j = j0 + (across ? over : down);
    const uint64_t element = uint64_t(row + i) * s.tokens + j;
    const uint4 words = philox(s.key, element / 4);
    const uint32_t at = element % 4, word = at == 0 ? words.x : at == 1 ? words.y : at == 2 ? words.z : words.w;
    bits |= uint32_t((word >> 8) >= s.dropped) << e;
  }
  return bits;
}
__device__ __forceinline__ float factor_of(const Shape& s, uint32_t bits, int element) {
  return s.dropped == 0 ? 1.f : (bits >> element & 1) != 0 ? s.keep : 0.f;
}

// f(D): the padded head_dim.
template <class F> const char* by_width(const Shape& s, const F& f) {
  if (s.head_dim <= 32) return f(std::integral_constant<int, 32>{});
  if (s.head_dim <= 64) return f(std::integral_constant<int, 64>{});
  if (s.head_dim <= 128) return f(std::integral_constant<int, 128>{});
  return f(std::integral_constant<int, 256>{});
}

}  // namespace flash
}  // namespace ds
