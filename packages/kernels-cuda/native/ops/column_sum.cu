// Sums of columns: the gradient of a bias. Rows are summed in chunks that the shape alone fixes, then the chunks in order, so the
// bits do not depend on the device. Bound by reading x once.
#include "../device.cuh"
#include "../gemm_parts.h"

namespace ds {

namespace {

constexpr int kWarps = 8;        // of a block of the first pass
constexpr int64_t kChunk = 64;   // rows of a block: 8 a warp, all in flight at once
constexpr int64_t kMostChunk = 1024;
constexpr int64_t kManyBlocks = 528;  // 4 for each multiprocessor of an H100

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a chunk: short ones fill the device where there is little, long ones keep the partial sums few. 256 columns go to a
// block whatever the vector, so that alignment does not change the order of additions.
int64_t chunk_rows(int64_t rows, int64_t columns) {
  int64_t chunk = kChunk;
  while (chunk < kMostChunk && ceil_div(rows, chunk) * ceil_div(columns, 256) > kManyBlocks) chunk *= 2;
  return chunk;
}

// partial [chunks, columns]: row r of a chunk belongs to warp r % 8, and the warps' sums are added in order. A lane has V columns.
template <class T, int V>
__global__ void __launch_bounds__(32 * kWarps)
    chunk_sums(const T* x, int64_t ld, int64_t rows, int64_t columns, int64_t chunk, float* partial) {
  constexpr int kTile = 32 * V, kUnroll = 8;
  __shared__ float room[kWarps][kTile];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = blockIdx.x * int64_t(kTile) + lane * V;
  const int64_t first = blockIdx.y * chunk, last = first + chunk < rows ? first + chunk : rows;
  const int64_t left = columns - column;  // of this lane's V columns, how many there are
  float sum[V];
#pragma unroll
  for (int v = 0; v < V; v++) sum[v] = 0;
  const T* from = x + (first + warp) * ld + column;
  const int64_t step = kWarps * ld;
  int64_t r = first + warp;
  if (left >= V) {
    for (; r + (kUnroll - 1) * kWarps < last; r += kUnroll * kWarps, from += kUnroll * step) {
      Pack<T, V> row[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; u++) row[u] = *reinterpret_cast<const Pack<T, V>*>(from + u * step);
#pragma unroll
      for (int u = 0; u < kUnroll; u++) {
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += to_float(row[u].v[v]);
      }
    }
    for (; r < last; r += kWarps, from += step) {
      const Pack<T, V> row = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
      for (int v = 0; v < V; v++) sum[v] += to_float(row.v[v]);
    }
  } else {
    for (; r < last; r += kWarps, from += step) {
#pragma unroll
      for (int v = 0; v < V; v++)
        if (v < left) sum[v] += to_float(from[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < V; v++) room[warp][lane * V + v] = sum[v];
  __syncthreads();
  for (int j = threadIdx.x; j < kTile; j += 32 * kWarps) {
    const int64_t at = blockIdx.x * int64_t(kTile) + j;
    if (at >= columns) break;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) total += room[w][j];
    partial[blockIdx.y * columns + at] = total;
  }
}

// out = sums of the chunks. A block has 32 columns; warp w takes chunks w, w + 32, .. and the warps are added in order.
__global__ void __launch_bounds__(1024)
    sum_chunks(const float* partial, int64_t chunks, int64_t columns, ColumnPieces pieces, bool accumulate) {
  __shared__ float room[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = blockIdx.x * 32 + int64_t(lane);
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t i = warp; i < chunks; i += 32) sum += partial[i * columns + column];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= columns) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < 32; w++) total += room[w][lane];
#pragma unroll
  for (int p = 0; p < ColumnPieces::kMax; p++) {
    if (p >= pieces.count || column < pieces.begin[p] || column >= pieces.begin[p + 1]) continue;
    const int64_t at = column - pieces.begin[p];
    const auto put = [&](auto* out) {
      using T = typename std::remove_reference<decltype(*out)>::type;
      out[at] = from_float<T>(accumulate ? to_float(out[at]) + total : total);
    };
    if (pieces.dtype[p] == F32) put(static_cast<float*>(pieces.out[p]));
    if (pieces.dtype[p] == BF16) put(static_cast<bf16*>(pieces.out[p]));
    if (pieces.dtype[p] == F16) put(static_cast<f16*>(pieces.out[p]));
  }
}

}  // namespace

size_t column_sums_bytes(int64_t rows, int64_t columns) {
  const size_t bytes = size_t(ceil_div(rows, chunk_rows(rows, columns))) * size_t(columns) * sizeof(float);
  return bytes ? bytes : sizeof(float);
}

void column_sums(const void* x, int dtype, int64_t ld, int64_t rows, const ColumnPieces& pieces, bool accumulate, void* partial,
                 cudaStream_t stream) {
  const int64_t columns = pieces.begin[pieces.count];
  if (columns == 0) return;
  const int64_t chunk = chunk_rows(rows, columns), chunks = ceil_div(rows, chunk);
  float* sums = static_cast<float*>(partial);
  if (rows > 0) {
    by_float(dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const T* from = static_cast<const T*>(x);
      constexpr int V = kVector<T>;
      const bool wide = is_aligned(from, 16) && ld % V == 0;
      const int tile = wide ? 32 * V : 32;
      const dim3 grid(unsigned(ceil_div(columns, tile)), unsigned(chunks));
      if (wide)
        chunk_sums<T, V><<<grid, 32 * kWarps, 0, stream>>>(from, ld, rows, columns, chunk, sums);
      else
        chunk_sums<T, 1><<<grid, 32 * kWarps, 0, stream>>>(from, ld, rows, columns, chunk, sums);
    });
  }
  add_column_sums(sums, chunks, pieces, accumulate, stream);
}

void add_column_sums(const float* partial, int64_t lines, const ColumnPieces& pieces, bool accumulate, cudaStream_t stream) {
  const int64_t columns = pieces.begin[pieces.count];
  sum_chunks<<<unsigned(ceil_div(columns, 32)), 1024, 0, stream>>>(partial, lines, columns, pieces, accumulate);
}

// out_i = sum over rows of dy's columns, from columnOffset on as many for each output as it has.
KERNEL(column_sum, kFloats) {
  const View& dy = c.in[0];
  const int64_t offset = int64_t(c.attrs[1]), total = dy.cols();
  if (c.n_out > ColumnPieces::kMax) return error_text("column_sum: at most %d outputs at once, got %d", ColumnPieces::kMax, c.n_out);
  ColumnPieces pieces = {};
  pieces.count = c.n_out;
  for (int i = 0; i < c.n_out; i++) {
    pieces.out[i] = c.out[i].data, pieces.dtype[i] = c.out[i].dtype;
    pieces.begin[i + 1] = pieces.begin[i] + c.out[i].numel;
  }
  const int64_t columns = pieces.begin[c.n_out];
  if (offset + columns > total)
    return error_text("column_sum: columns %lld to %lld of %lld", (long long)offset, (long long)(offset + columns), (long long)total);
  void* partial = scratch(kScratchA, column_sums_bytes(dy.rows(), columns));
  if (!partial) return kNoWorkspace;
  column_sums(dy.as<char>() + offset * kElementBytes[dy.dtype], dy.dtype, total, dy.rows(), pieces, c.attrs[2] != 0, partial, c.stream);
  return nullptr;
}

}  // namespace ds
