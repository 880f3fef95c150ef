// For the tuning of products: reproducible random operands, and a hash that tells results apart bit by bit.
#include "../device.cuh"
#include "../gemm_parts.h"

namespace ds {

namespace {

__device__ __forceinline__ uint64_t mix(uint64_t x) {  // the finisher of SplitMix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

template <class T> __global__ void random_values(T* to, int64_t count, uint32_t seed) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += step) {
    const uint32_t bits = uint32_t(mix((uint64_t(seed) << 40) + uint64_t(i) + 1) >> 40);  // 24 bits
    to[i] = from_float<T>(float(bits) * 0x1p-23f - 1.0f);
  }
}

__global__ void hash_of_words(const uint32_t* from, int64_t words, unsigned long long* hash) {
  __shared__ unsigned long long room[32];
  unsigned long long sum = 0;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < words; i += step)
    sum += mix((uint64_t(i) + 1) * 0x9E3779B97F4A7C15ull ^ (uint64_t(from[i]) << 20));
  sum = block_reduce(sum, 0ull, room, Sum());
  if (threadIdx.x == 0) atomicAdd(hash, sum);
}

}  // namespace

void fill_random(void* to, int dtype, int64_t count, uint32_t seed, cudaStream_t stream) {
  if (count == 0) return;
  by_float(dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    random_values<T><<<grid_for(count, 1024), 256, 0, stream>>>(static_cast<T*>(to), count, seed);
  });
}

void hash_words(const void* from, int64_t words, unsigned long long* hash, cudaStream_t stream) {
  if (words == 0) return;
  hash_of_words<<<grid_for(words, 1024), 256, 0, stream>>>(static_cast<const uint32_t*>(from), words, hash);
}

}  // namespace ds
