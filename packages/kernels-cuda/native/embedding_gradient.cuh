// The gradient of an embedding table without atomics: tokens are sorted by id (stable, so equal ids stay in token order), cut into
// tiles of kTile tokens, and each tile sums its runs of equal ids. A run inside one tile is written at once; a run that crosses
// tiles (a frequent token) leaves a partial sum in each, and a second kernel adds those in order. Which additions are made, and in
// which order, depends on the ids alone.
#pragma once
#include <cub/device/device_radix_sort.cuh>

#include "device.cuh"
#include "fault.cuh"

namespace ds {

constexpr int kTile = 32;

struct EmbeddingOrder {
  const int32_t* keys;       // sorted ids; an id outside the table is V, sorts last and is left out
  const int32_t* positions;  // the token of each
  float* partial;            // [tiles, 2, C]: of the run that came into a tile, and of the one that starts there and goes on
  int n;
  int V;
};

static __global__ void number_tokens(const int32_t* ids, int32_t* keys, int32_t* positions, int n, int V, Fault* fault) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int32_t id = ids[i];
  const bool known = id >= 0 && id < V;
  if (!known) device_fault(fault, kFaultEmbeddingId, id, i, V);
  keys[i] = known ? id : V;
  positions[i] = i;
}

// Sorts the tokens and reserves what add_tokens needs.
static inline const char* order_tokens(const View& ids, int64_t V, int64_t C, cudaStream_t stream, EmbeddingOrder& order) {
  if (ids.numel > (1 << 30) || V >= (1 << 30))
    return error_text("embedding_backward: %lld ids into %lld rows, at most 2^30 of each are supported", (long long)ids.numel,
                      (long long)V);
  const int n = int(ids.numel);
  int bits = 1;
  while (V >> bits) bits++;  // keys are 0..V
  const int64_t stride = (n + 63) / 64 * 64;
  int32_t* room = static_cast<int32_t*>(scratch(kScratchA, size_t(stride) * 4 * sizeof(int32_t)));
  const int64_t tiles = (n + kTile - 1) / kTile;
  order.partial = static_cast<float*>(scratch(kScratchB, size_t(tiles * 2 * C) * sizeof(float)));
  if (!room || !order.partial) return kNoWorkspace;
  int32_t *keys = room, *positions = room + stride, *sorted_keys = room + 2 * stride, *sorted_positions = room + 3 * stride;
  size_t bytes = 0;
  const auto sort = [&](void* temporary) {
    return cub::DeviceRadixSort::SortPairs(temporary, bytes, keys, sorted_keys, positions, sorted_positions, n, 0, bits, stream);
  };
  cudaError_t error = sort(nullptr);
  if (error != cudaSuccess) return cuda_error_text("embedding_backward: sorting of the ids", error);
  void* temporary = scratch(kScratchC, bytes + 1);
  if (!temporary) return kNoWorkspace;
  number_tokens<<<unsigned((n + 255) / 256), 256, 0, stream>>>(ids.as<int32_t>(), keys, positions, n, int(V), fault_slot());
  error = sort(temporary);
  if (error != cudaSuccess) return cuda_error_text("embedding_backward: sorting of the ids", error);
  order.keys = sorted_keys, order.positions = sorted_positions, order.n = n, order.V = int(V);
  return nullptr;
}

// to[c .. c + N) (+)= sum, f32 in between.
template <class T, int N> static __device__ __forceinline__ void finish_row(T* to, float (&sum)[N], bool accumulate) {
  if (accumulate) {
    float old[N];
    load(to, old);
#pragma unroll
    for (int i = 0; i < N; i++) sum[i] = old[i] + sum[i];
  }
  store(to, sum);
}

// blockIdx.x: the tile; blockIdx.y: blockDim.x * N columns.
template <class G, class T, int N>
__global__ void __launch_bounds__(128) sum_tiles(const G* dy, T* dtable, EmbeddingOrder order, int64_t C, bool accumulate) {
  constexpr int kAhead = 4;  // rows of dy in flight
  __shared__ int32_t key[kTile + 2], position[kTile];  // key[1 + j] is of token j of the tile; its neighbours are -1 at the ends
  const int begin = blockIdx.x * kTile, count = min(kTile, order.n - begin);
  for (int j = threadIdx.x; j < count + 2; j += blockDim.x) {
    const int at = begin + j - 1;
    key[j] = at >= 0 && at < order.n ? order.keys[at] : -1;
    if (j < count) position[j] = order.positions[begin + j];
  }
  __syncthreads();
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (column >= C) return;
  float* partial = order.partial + int64_t(blockIdx.x) * 2 * C + column;
  float sum[N] = {};
  for (int j = 0; j < count; j += kAhead) {
    Pack<G, N> ahead[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++)
      if (j + u < count) ahead[u] = *reinterpret_cast<const Pack<G, N>*>(dy + int64_t(position[j + u]) * C + column);
    if (accumulate) {  // the rows that these sums and the next will be added to
#pragma unroll
      for (int u = 0; u < 2 * kAhead; u++) {
        const int at = j + u;
        if ((j > 0 && u < kAhead) || at >= count || key[1 + at] >= order.V) continue;
        asm volatile("prefetch.global.L2 [%0];" ::"l"(dtable + int64_t(key[1 + at]) * C + column));
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (j + u >= count) break;
#pragma unroll
      for (int i = 0; i < N; i++) sum[i] += to_float(ahead[u].v[i]);
      const int32_t id = key[1 + j + u];
      if (j + u + 1 < count && key[2 + j + u] == id) continue;
      // The run ends here, or with the tile. It came in from the tile before exactly if all keys back to the first are its own (sorted).
      const bool came_in = key[1] == id && key[0] == id, goes_on = j + u + 1 == count && key[count + 1] == id;
      if (id < order.V) {
        if (came_in)
          store(partial, sum);
        else if (goes_on)
          store(partial + C, sum);
        else
          finish_row(dtable + int64_t(id) * C + column, sum, accumulate);
      }
#pragma unroll
      for (int i = 0; i < N; i++) sum[i] = 0;
    }
  }
}

// The tile in which a run starts that goes on in the next adds the run's partial sums, tile by tile.
template <class T, int N>
__global__ void __launch_bounds__(128) join_tiles(T* dtable, EmbeddingOrder order, int64_t C, bool accumulate) {
  const int tile = blockIdx.x, begin = tile * kTile, next = begin + kTile;  // there is a next tile
  const int32_t id = order.keys[next - 1];
  if (order.keys[next] != id || id >= order.V || (begin > 0 && order.keys[begin - 1] == id)) return;
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (column >= C) return;
  int low = next, high = order.n;  // keys[low] is the run's; the first that is not is in (low, high]
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (order.keys[middle] == id) low = middle;
    else high = middle;
  }
  const int last = low / kTile;
  float sum[N], part[N];
  load(order.partial + (int64_t(tile) * 2 + 1) * C + column, sum);
#pragma unroll 4
  for (int t = tile + 1; t <= last; t++) {
    load(order.partial + int64_t(t) * 2 * C + column, part);
#pragma unroll
    for (int i = 0; i < N; i++) sum[i] += part[i];
  }
  finish_row(dtable + int64_t(id) * C + column, sum, accumulate);
}

template <class G, class T, int N>
static void add_tokens_by(const View& dy, const View& dtable, const EmbeddingOrder& order, bool accumulate, cudaStream_t stream) {
  const int64_t C = dtable.cols(), vectors = (C + N - 1) / N;
  const unsigned threads = vectors >= 128 ? 128 : unsigned((vectors + 31) / 32 * 32);
  const unsigned tiles = unsigned((order.n + kTile - 1) / kTile), parts = unsigned((vectors + threads - 1) / threads);
  sum_tiles<G, T, N><<<dim3(tiles, parts), threads, 0, stream>>>(dy.as<G>(), dtable.as<T>(), order, C, accumulate);
  if (tiles > 1) join_tiles<T, N><<<dim3(tiles - 1, parts), threads, 0, stream>>>(dtable.as<T>(), order, C, accumulate);
}

template <class G, class T>
static void add_tokens(const View& dy, const View& dtable, const EmbeddingOrder& order, bool accumulate, cudaStream_t stream) {
  constexpr int N = kVector<G>;
  if (dtable.cols() % N == 0 && is_aligned(dy.data, 16) && is_aligned(dtable.data, N * sizeof(T)))
    add_tokens_by<G, T, N>(dy, dtable, order, accumulate, stream);
  else
    add_tokens_by<G, T, 1>(dy, dtable, order, accumulate, stream);
}

}  // namespace ds
