// out = sum of x^2. Double partials over fixed chunks of 4096 elements, then binary trees over 1024 partials until one is
// left, so that the value depends on the data alone. Inside a chunk, 16 running sums, sum j covering the elements j mod 16,
// are combined as one binary tree; a float squared is exact in double: the bits are the CPU's.
#include "flash/mma.cuh"

namespace ds {
namespace {

constexpr int64_t kChunk = 4096;
constexpr int kGroup = 1024;     // partials that a tree combines
constexpr int kSums = 16;        // of a chunk, a thread each: many short chains keep a GPU busy on one layer's gradients too
constexpr int kBlockChunks = 32 / kSums;

__device__ __forceinline__ void add_square(double& sum, float x) { sum = fma(double(x), double(x), sum); }

// A warp has two chunks. Staged (x aligned to 16 bytes), it fetches both at once, which costs one wait for memory.
template <bool staged, class T> __global__ void __launch_bounds__(32) chunk_sums(const T* x, int64_t n, int64_t chunks, double* partials) {
  constexpr int kBytes = int(kChunk) * int(sizeof(T)), kPitch = kBytes + 32;  // the two chunks in different banks
  __shared__ __align__(16) unsigned char room[staged ? kBlockChunks * kPitch : 16];
  const int own = threadIdx.x / kSums, j = threadIdx.x % kSums;
  const int64_t chunk = blockIdx.x * int64_t(kBlockChunks) + own, begin = chunk * kChunk, left = n - begin;
  const T* from = x + begin + j;
  double sum = 0;
  if (left >= kChunk) {
    if constexpr (staged) {
      const unsigned char* bytes = reinterpret_cast<const unsigned char*>(x + begin) + j * 16;
      const flash::Address to = flash::Address(__cvta_generic_to_shared(room + own * kPitch)) + j * 16;
#pragma unroll 16
      for (int i = 0; i < kBytes; i += kSums * 16) flash::copy_async(to + i, bytes + i, true);
      flash::copies_done();
      __syncwarp(0xffffu << own * kSums);
      from = reinterpret_cast<const T*>(room + own * kPitch) + j;
    }
#pragma unroll 16
    for (int i = 0; i < kChunk; i += kSums) add_square(sum, to_float(from[i]));
  } else {
    for (int64_t i = 0; i < left - j; i += kSums) add_square(sum, to_float(from[i]));
  }
#pragma unroll
  for (int distance = kSums / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (j == 0 && chunk < chunks) partials[chunk] = sum;
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
      const unsigned blocks = unsigned(parts(count, kBlockChunks));
      if (is_aligned(data, 16)) chunk_sums<true><<<blocks, 32, 0, c.stream>>>(data, x.numel, count, from);
      else chunk_sums<false><<<blocks, 32, 0, c.stream>>>(data, x.numel, count, from);
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
