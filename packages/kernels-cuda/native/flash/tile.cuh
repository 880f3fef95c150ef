// Tiles of a head in shared memory, and products of tiles. A row of D values is followed by 16 bytes of padding: the rows that
// one matrix load reads then lie in different banks, and every offset within a tile is a constant.
#pragma once
#include "flash/mma.cuh"

namespace ds {
namespace flash {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

template <int D> constexpr int kRowBytes = 2 * D + 16;

// Rows of D values, `stride` apart; rows from `rows_there` on are zeros.
template <int rows, int D, class T>
__device__ __forceinline__ void load_tile(Address to, const T* from, int64_t stride, int rows_there) {
  constexpr int kChunks = D / 8, kStep = kThreads / kChunks;
  static_assert(rows * kChunks % kThreads == 0, "all threads copy as much");
  if constexpr (kThreads % kChunks == 0) {
    // A thread keeps its column: one address, and constants on top of it.
    const int row = threadIdx.x / kChunks, column = threadIdx.x % kChunks;
    to += row * kRowBytes<D> + column * 16, from += row * stride + column * 8;
#pragma unroll
    for (int i = 0; i < rows / kStep; i++)
      copy_async(to + i * kStep * kRowBytes<D>, from + i * (kStep * stride), row + i * kStep < rows_there);
  } else {
#pragma unroll
    for (int i = 0; i < rows * kChunks / kThreads; i++) {
      const int chunk = i * kThreads + threadIdx.x, row = chunk / kChunks, column = chunk % kChunks;
      copy_async(to + row * kRowBytes<D> + column * 16, from + row * stride + column * 8, row < rows_there);
    }
  }
}

// Where a lane's row of the four matrices lies, relative to the corner of 16 x 16 values:
// of an A fragment, and of two B fragments next to each other when B lies by rows (k down; transposed when loaded);
template <int D> __device__ __forceinline__ Address row_lane(int lane) { return lane % 16 * kRowBytes<D> + lane / 16 * 16; }
// of two B fragments when B lies by columns (k across).
template <int D> __device__ __forceinline__ Address column_lane(int lane) {
  return (lane % 8 + lane / 16 * 8) * kRowBytes<D> + lane / 8 % 2 * 16;
}

// c [16 tiles x 8 columns] = a b': a has rows of D from address `a` on, b as well (row_lane and column_lane included).
template <class T, int D, int tiles, int columns>
__device__ __forceinline__ void multiply_rows(float (&c)[tiles][columns][4], Address a, Address b) {
#pragma unroll
  for (int m = 0; m < tiles; m++)
#pragma unroll
    for (int n = 0; n < columns; n++)
#pragma unroll
      for (int r = 0; r < 4; r++) c[m][n][r] = 0;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t left[tiles][4];
#pragma unroll
    for (int m = 0; m < tiles; m++) load_matrices(left[m], a + m * 16 * kRowBytes<D> + k * 32);
#pragma unroll
    for (int n = 0; n < columns / 2; n++) {
      uint32_t right[4];
      load_matrices(right, b + n * 16 * kRowBytes<D> + k * 32);
#pragma unroll
      for (int m = 0; m < tiles; m++) {
        multiply<T>(c[m][2 * n], left[m], right[0], right[1]);
        multiply<T>(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// c [16 tiles x 8 columns] += a b: a [16 tiles x 16 depth] in fragments, b as rows from address `b` on (row_lane included).
template <class T, int D, int tiles, int depth, int columns>
__device__ __forceinline__ void multiply_fragments(float (&c)[tiles][columns][4], const uint32_t (&a)[tiles][depth][4], Address b) {
#pragma unroll
  for (int k = 0; k < depth; k++)
#pragma unroll
    for (int n = 0; n < columns / 2; n++) {
      uint32_t right[4];
      load_matrices_transposed(right, b + k * 16 * kRowBytes<D> + n * 32);
#pragma unroll
      for (int m = 0; m < tiles; m++) {
        multiply<T>(c[m][2 * n], a[m][k], right[0], right[1]);
        multiply<T>(c[m][2 * n + 1], a[m][k], right[2], right[3]);
      }
    }
}

// Two C fragments side by side are one A fragment.
template <class T> __device__ __forceinline__ void as_fragment(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = pack<T>(left[0], left[1]);
  a[1] = pack<T>(left[2], left[3]);
  a[2] = pack<T>(right[0], right[1]);
  a[3] = pack<T>(right[2], right[3]);
}

// A warp's rows c [16 tiles x 8 columns], times factor[m][0] (rows g) and factor[m][1] (rows g + 8), go through its own rows of
// shared memory at `room` to `to`, in accesses of 16 bytes. Rows from `rows_there` on are not stored.
template <class T, int D, int tiles, int columns>
__device__ __forceinline__ void store_rows(const float (&c)[tiles][columns][4], const float (&factor)[tiles][2], Address room, T* to,
                                           int64_t stride, int rows_there) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < tiles; m++)
#pragma unroll
    for (int n = 0; n < columns; n++) {
      const Address at = room + (m * 16 + lane / 4) * kRowBytes<D> + n * 16 + lane % 4 * 4;
      store_shared(at, pack<T>(c[m][n][0] * factor[m][0], c[m][n][1] * factor[m][0]));
      store_shared(at + 8 * kRowBytes<D>, pack<T>(c[m][n][2] * factor[m][1], c[m][n][3] * factor[m][1]));
    }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < tiles * columns / 2; i++) {  // 16 tiles * columns chunks of 16 bytes
    const int chunk = i * 32 + lane, row = chunk / columns, column = chunk % columns;
    if (row < rows_there) *reinterpret_cast<uint4*>(to + row * stride + column * 8) = load_shared(room + row * kRowBytes<D> + column * 16);
  }
}

}  // namespace flash
}  // namespace ds
