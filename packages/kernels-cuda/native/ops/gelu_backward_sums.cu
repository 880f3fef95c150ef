// GELU's gradient, the activation once more, and the gradient of the bias before it: what a feed-forward part's backward does between its
// products, reading each array once.
#include <algorithm>

#include "../activation.cuh"
#include "../elementwise.cuh"
#include "../gemm_parts.h"

namespace ds {
namespace {

// A block's columns are at most kMostThreads vectors. Rows are dealt in turn to as many blocks as 132 multiprocessors hold, on every
// device: which rows a sum meets, and in which order, follows from the shape alone. Dealt in turn, what all blocks touch at a time lies
// together. A row at a time is best: with two in flight a thread, or more threads resident, memory met so many places at once that the
// pass took 1.5 times as long.
constexpr int kMostThreads = 384, kResident = 1152;

struct Tiling {
  int threads;
  int64_t tiles, lines;  // of columns; of partial sums, each over every lines-th row
};
Tiling tiling_of(int64_t rows, int64_t columns, int vector) {
  const int64_t vectors = (columns + vector - 1) / vector, tiles = (vectors + kMostThreads - 1) / kMostThreads;
  const int threads = int((((vectors + tiles - 1) / tiles) + 31) / 32 * 32);
  const int64_t lines = 132 * (kResident / threads) / tiles;
  return {threads, tiles, std::max<int64_t>(1, std::min(lines, rows))};
}
// Vectors as the dtype has them where the columns allow; the same whatever the alignment, so that sums are too.
int vector_of(int64_t columns, int dtype) {
  const int vector = int(16 / kElementBytes[dtype]);
  return columns % vector == 0 ? vector : 1;
}

// N columns a thread, accesses of A elements.
template <class T, int N, int A>
__global__ void __launch_bounds__(kMostThreads, kResident / kMostThreads)
    backward_sums(const T* dy, const T* x, T* dx, T* y, int64_t rows, int64_t columns, float* partial) {
  const int64_t column = (blockIdx.x * int64_t(blockDim.x) + threadIdx.x) * N;
  if (column >= columns) return;
  const auto read = [](const T* from, float(&to)[N]) {
#pragma unroll
    for (int k = 0; k < N; k += A) {
      const Pack<T, A> pack = load_pack<A>(from + k);
#pragma unroll
      for (int i = 0; i < A; i++) to[k + i] = to_float(pack.v[i]);
    }
  };
  // Rounds x to what is stored.
  const auto write = [](T* to, float(&x)[N]) {
    const Pack<T, N> pack = packed<T>(x);
#pragma unroll
    for (int k = 0; k < N; k += A) {
      Pack<T, A> part;
#pragma unroll
      for (int i = 0; i < A; i++) part.v[i] = pack.v[k + i];
      store_pack(to + k, part);
    }
    unpack(pack, x);
  };
  float sum[N] = {};
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t at = row * columns + column;
    float d[N], v[N];
    read(dy + at, d);
    read(x + at, v);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const GeluValue value = gelu_value<true, kFastMath<T>>(v[k]);
      d[k] *= value.slope;
      v[k] *= value.phi;
    }
    write(dx + at, d);
    write(y + at, v);
#pragma unroll
    for (int k = 0; k < N; k++) sum[k] += d[k];  // of what is stored
  }
#pragma unroll
  for (int k = 0; k < N; k++) partial[blockIdx.y * columns + column + k] = sum[k];
}

}  // namespace

size_t gelu_backward_sums_bytes(int64_t rows, int64_t columns, int dtype) {
  return size_t(tiling_of(rows, columns, vector_of(columns, dtype)).lines * std::max<int64_t>(columns, 1)) * sizeof(float);
}

void gelu_backward_sums(const void* dy, const void* x, void* dx, void* y, int dtype, int64_t rows, int64_t columns, const View& sums,
                        bool accumulate, void* partial, cudaStream_t stream) {
  if (columns == 0) return;
  const int vector = vector_of(columns, dtype);
  const Tiling t = tiling_of(rows, columns, vector);
  const dim3 grid(unsigned(t.tiles), unsigned(t.lines));
  const bool aligned = is_aligned(dy, 16) && is_aligned(x, 16) && is_aligned(dx, 16) && is_aligned(y, 16);
  by_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto run = [&](auto kernel) {
      kernel<<<grid, t.threads, 0, stream>>>(static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dx), static_cast<T*>(y), rows,
                                             columns, static_cast<float*>(partial));
    };
    if (vector == 1) run(backward_sums<T, 1, 1>);
    else if (aligned) run(backward_sums<T, kVector<T>, kVector<T>>);
    else run(backward_sums<T, kVector<T>, 1>);
  });
  ColumnPieces pieces = {};
  pieces.count = 1, pieces.out[0] = sums.data, pieces.dtype[0] = sums.dtype, pieces.begin[1] = columns;
  add_column_sums(static_cast<const float*>(partial), t.lines, pieces, accumulate, stream);
}

}  // namespace ds
