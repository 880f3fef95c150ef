// out = sum of x^2. Double partials over fixed chunks of 4096 elements, then binary trees over 1024 partials until one is
// left, so that the value depends on the data alone. Inside a chunk, 16 running sums, sum j covering the elements j mod 16,
// are combined as one binary tree; a float squared is exact in double: the bits are the CPU's.
#include "device.cuh"

namespace ds {
namespace {

constexpr int64_t kChunk = 4096;
constexpr int kGroup = 1024;           // partials that a tree combines
constexpr int kOwners = 4;             // threads that share a chunk, each with 4 of the 16 sums
constexpr int kThreads = 128;
constexpr int kInFlight = 8;           // loads of a thread

__device__ __forceinline__ void add_square(double& sum, float x) { sum = fma(double(x), double(x), sum); }

template <bool aligned, class T> __device__ __forceinline__ void load_four(const T* from, float (&v)[4]) {
  if constexpr (aligned) {
    load<4>(from, v);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = to_float(from[j]);
  }
}

// Thread o of a chunk's four has sums 4 o to 4 o + 3, and reads elements 16 i + 4 o to 16 i + 4 o + 3.
template <bool aligned, class T>
__global__ void __launch_bounds__(kThreads) chunk_sums(const T* x, int64_t n, int64_t chunks, double* partials) {
  const int64_t chunk = (blockIdx.x * int64_t(kThreads) + threadIdx.x) / kOwners;
  const int owner = threadIdx.x % kOwners;
  double sum[4] = {0, 0, 0, 0};
  const int64_t begin = chunk * kChunk, left = n - begin;
  const T* from = x + begin + 4 * owner;
  if (left >= kChunk) {
    for (int i = 0; i < kChunk; i += 16 * kInFlight) {
      float v[kInFlight][4];
#pragma unroll
      for (int k = 0; k < kInFlight; k++) load_four<aligned>(from + i + 16 * k, v[k]);
#pragma unroll
      for (int k = 0; k < kInFlight; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) add_square(sum[j], v[k][j]);
    }
  } else if (left > 0) {
    const int64_t end = (left < kChunk ? left : kChunk) - 4 * owner;
    for (int64_t i = 0; i < end; i += 16)
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (i + j < end) add_square(sum[j], to_float(from[i + j]));
  }
  // The tree's first levels add sums 8 and 4 apart, which other threads have; its last two are this thread's own.
#pragma unroll
  for (int distance = 2; distance > 0; distance /= 2)
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], distance);
  if (owner == 0 && chunk < chunks) partials[chunk] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// Block b: partials 1024 b to 1024 b + 1023, absent ones as zeros; halves are added until one is left.
__global__ void __launch_bounds__(kGroup / 2) tree_sums(const double* from, int64_t n, double* to, float* total) {
  __shared__ double room[kGroup / 2];
  const int i = threadIdx.x;
  const int64_t at = blockIdx.x * int64_t(kGroup) + i;
  room[i] = (at < n ? from[at] : 0) + (at + kGroup / 2 < n ? from[at + kGroup / 2] : 0);
  for (int half = kGroup / 4; half > 0; half /= 2) {
    __syncthreads();
    if (i < half) room[i] += room[i + half];
  }
  if (i != 0) return;
  if (total != nullptr) *total = float(room[0]);
  else to[blockIdx.x] = room[0];
}

int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

KERNEL(sum_squares, kFloats) {
  const View& x = c.in[0];
  int64_t count = parts(x.numel, kChunk);
  // Room for the chunks' sums and those of their trees; a tree never writes where another reads.
  auto* from = static_cast<double*>(scratch(kScratchA, size_t(count + parts(count, kGroup) * 2 + 1) * sizeof(double)));
  if (from == nullptr) return kNoWorkspace;
  if (count > 0) {
    by_float(x.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* data = x.as<const T>();
      const unsigned blocks = unsigned(parts(count * kOwners, kThreads));
      if (is_aligned(data, 4 * sizeof(T))) chunk_sums<true><<<blocks, kThreads, 0, c.stream>>>(data, x.numel, count, from);
      else chunk_sums<false><<<blocks, kThreads, 0, c.stream>>>(data, x.numel, count, from);
    });
  }
  while (count > kGroup) {
    double* to = from + count;
    const int64_t groups = parts(count, kGroup);
    tree_sums<<<unsigned(groups), kGroup / 2, 0, c.stream>>>(from, count, to, nullptr);
    from = to, count = groups;
  }
  tree_sums<<<1, kGroup / 2, 0, c.stream>>>(from, count, nullptr, c.out[0].as<float>());
  return nullptr;
}

}  // namespace ds
